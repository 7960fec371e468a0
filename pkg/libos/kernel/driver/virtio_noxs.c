// SPDX-License-Identifier: GPL-2.0
/*
 * Virtio devices of a Xen PV domain that has no XenStore.
 *
 * The toolstack describes the devices in one page of the domain's memory, and
 * lays down a pool of pages behind it. The host maps these pages and no other:
 * rings live in the pool, and data is copied through it. One event channel for
 * each device carries notifications in both directions.
 *
 * docs/noxs.md of the xcontainer project specifies all of this; section
 * numbers below are the ones of that document.
 */

#define pr_fmt(fmt) "virtio_noxs: " fmt

#include <linux/bitmap.h>
#include <linux/device.h>
#include <linux/dma-map-ops.h>
#include <linux/init.h>
#include <linux/interrupt.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/panic_notifier.h>
#include <linux/random.h>
#include <linux/reboot.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <linux/wait.h>
#include <xen/events.h>
#include <xen/noxs.h>
#include <xen/page.h>
#include <xen/xen.h>
#include <asm/xen/hypervisor.h>

/* How long the host may take to carry out a request (section 4). */
#define NOXS_REQUEST_TIMEOUT	(10 * HZ)

/* How often to look whether the host has finished changing configuration. */
#define NOXS_GENERATION_TRIES	100000

/* The longest buffer that drivers are told they may map at once. */
#define NOXS_MAX_MAPPING	SZ_64K

/* Largest queue this driver sets up: one page holds the rings of 128. */
#define NOXS_MAX_QUEUE_SIZE	1024

/* A mapping; kept for the first of its pages. */
struct noxs_slot {
	phys_addr_t orig;	/* the buffer that the mapping stands for */
	u32 size;		/* in bytes */
	u32 pages;		/* 0: no mapping starts at this page */
};

/* The pages of a device's section for one direction, and their allocator. */
struct noxs_zone {
	spinlock_t lock;	/* protects used */
	unsigned int first;	/* first page, counted from the pool's start */
	unsigned int pages;
	unsigned long *used;	/* one bit for each page */
	struct noxs_slot *slots; /* one for each page, owned by who owns the page */
};

struct noxs_device {
	struct virtio_device vdev;
	struct device dev;	/* parent of vdev; bears the DMA operations */
	struct noxs_entry *entry;
	unsigned int irq;

	/* What the entry said at probe; the page is not trusted twice. */
	u32 port;
	u32 num_queues;
	u32 config_len;
	u64 features;

	struct noxs_zone out;
	struct noxs_zone in;

	struct mutex lock;	/* serialises requests */
	wait_queue_head_t wait;	/* for ack_seq */
	u32 seq;		/* the last request */
	u8 status;
	bool dead;		/* the host did not answer, or gave up the device */
	bool live;		/* vdev is registered */

	spinlock_t vq_lock;	/* protects vqs and generation */
	struct virtqueue *vqs[NOXS_MAX_QUEUES];
	u32 generation;
};

static struct noxs_page *noxs_page __ro_after_init;
static u8 *noxs_pool __ro_after_init;
static u32 noxs_doorbell __ro_after_init;

#define to_noxs(v)	container_of(v, struct noxs_device, vdev)
#define dev_to_noxs(d)	container_of(d, struct noxs_device, dev)

/*
 * DMA operations: copy through the pool (section 3).
 *
 * A DMA address is a byte offset from the start of the pool.
 */

static int noxs_zone_init(struct noxs_zone *zone, u32 first, u32 pages)
{
	spin_lock_init(&zone->lock);
	zone->first = first;
	zone->pages = pages;
	zone->used = bitmap_zalloc(pages, GFP_KERNEL);
	zone->slots = kvcalloc(pages, sizeof(*zone->slots), GFP_KERNEL);
	return zone->used && zone->slots ? 0 : -ENOMEM;
}

static void noxs_zone_free(struct noxs_zone *zone)
{
	bitmap_free(zone->used);
	kvfree(zone->slots);
}

/*
 * Take @n adjacent pages and return the index of the first, or -ENOMEM.
 *
 * Single pages come from the lower end; longer runs prefer the upper half, so
 * that single pages that stay in use for long do not cut it into pieces.
 */
static int noxs_zone_get(struct noxs_zone *zone, unsigned int n)
{
	unsigned long flags, i;
	int ret = -ENOMEM;

	spin_lock_irqsave(&zone->lock, flags);
	if (n == 1) {
		i = find_first_zero_bit(zone->used, zone->pages);
	} else {
		i = bitmap_find_next_zero_area(zone->used, zone->pages,
					       zone->pages / 2, n, 0);
		if (i >= zone->pages)
			i = bitmap_find_next_zero_area(zone->used, zone->pages,
						       0, n, 0);
	}
	if (i < zone->pages) {
		bitmap_set(zone->used, i, n);
		ret = i;
	}
	spin_unlock_irqrestore(&zone->lock, flags);
	return ret;
}

static void noxs_zone_put(struct noxs_zone *zone, unsigned int i, unsigned int n)
{
	unsigned long flags;

	spin_lock_irqsave(&zone->lock, flags);
	bitmap_clear(zone->used, i, n);
	spin_unlock_irqrestore(&zone->lock, flags);
}

static dma_addr_t noxs_zone_addr(const struct noxs_zone *zone, unsigned int i)
{
	return (dma_addr_t)(zone->first + i) << PAGE_SHIFT;
}

/* The zone that holds @addr, and the index of the page there. */
static struct noxs_zone *noxs_find_zone(struct noxs_device *nd, dma_addr_t addr,
					unsigned int *i)
{
	struct noxs_zone *zones[] = { &nd->out, &nd->in };
	u64 page = addr >> PAGE_SHIFT;
	unsigned int z;

	for (z = 0; z < ARRAY_SIZE(zones); z++) {
		if (page < zones[z]->first ||
		    page >= (u64)zones[z]->first + zones[z]->pages)
			continue;
		*i = page - zones[z]->first;
		return zones[z];
	}
	return NULL;
}

static dma_addr_t noxs_map_page(struct device *dev, struct page *page,
				unsigned long offset, size_t size,
				enum dma_data_direction dir, unsigned long attrs)
{
	struct noxs_device *nd = dev_to_noxs(dev);
	struct noxs_zone *zone = dir == DMA_TO_DEVICE ? &nd->out : &nd->in;
	struct noxs_slot *slot;
	dma_addr_t addr;
	int i;

	/* A page is either read or written by the host, never both. */
	if (WARN_ON_ONCE(dir == DMA_BIDIRECTIONAL) || !size ||
	    size > (size_t)zone->pages << PAGE_SHIFT)
		return DMA_MAPPING_ERROR;

	i = noxs_zone_get(zone, PFN_UP(size));
	if (i < 0)
		return DMA_MAPPING_ERROR;

	slot = &zone->slots[i];
	slot->orig = page_to_phys(page) + offset;
	slot->size = size;
	slot->pages = PFN_UP(size);
	addr = noxs_zone_addr(zone, i);

	/*
	 * Also for DMA_FROM_DEVICE: the host may write less than there is room
	 * for, and unmapping copies everything back.
	 */
	if (!(attrs & DMA_ATTR_SKIP_CPU_SYNC))
		memcpy(noxs_pool + addr, phys_to_virt(slot->orig), size);
	return addr;
}

static void noxs_unmap_page(struct device *dev, dma_addr_t addr, size_t size,
			    enum dma_data_direction dir, unsigned long attrs)
{
	struct noxs_device *nd = dev_to_noxs(dev);
	struct noxs_zone *zone;
	struct noxs_slot *slot;
	unsigned int i, pages;

	zone = noxs_find_zone(nd, addr, &i);
	if (WARN_ON_ONCE(!zone || !zone->slots[i].pages))
		return;

	slot = &zone->slots[i];
	if (dir == DMA_FROM_DEVICE && !(attrs & DMA_ATTR_SKIP_CPU_SYNC))
		memcpy(phys_to_virt(slot->orig), noxs_pool + addr, slot->size);

	pages = slot->pages;
	slot->pages = 0;
	noxs_zone_put(zone, i, pages);
}

/* Copy part of a mapping, from the buffer to the pool or back. */
static void noxs_sync(struct device *dev, dma_addr_t addr, size_t size,
		      bool to_pool)
{
	struct noxs_device *nd = dev_to_noxs(dev);
	struct noxs_zone *zone;
	struct noxs_slot *slot;
	unsigned int i;
	size_t skip;
	void *orig;

	zone = noxs_find_zone(nd, addr, &i);
	if (WARN_ON_ONCE(!zone))
		return;
	while (i && !zone->slots[i].pages)
		i--;
	slot = &zone->slots[i];
	skip = addr - noxs_zone_addr(zone, i);
	if (WARN_ON_ONCE(!slot->pages || skip > slot->size ||
			 size > slot->size - skip))
		return;

	orig = phys_to_virt(slot->orig + skip);
	if (to_pool)
		memcpy(noxs_pool + addr, orig, size);
	else
		memcpy(orig, noxs_pool + addr, size);
}

static void noxs_sync_for_cpu(struct device *dev, dma_addr_t addr, size_t size,
			      enum dma_data_direction dir)
{
	if (dir == DMA_FROM_DEVICE)
		noxs_sync(dev, addr, size, false);
}

static void noxs_sync_for_device(struct device *dev, dma_addr_t addr,
				 size_t size, enum dma_data_direction dir)
{
	if (dir == DMA_TO_DEVICE)
		noxs_sync(dev, addr, size, true);
}

/* Coherent memory is for rings, which lie in the out pages. */
static void *noxs_alloc(struct device *dev, size_t size, dma_addr_t *addr,
			gfp_t gfp, unsigned long attrs)
{
	struct noxs_device *nd = dev_to_noxs(dev);
	int i;

	if (!size || size > (size_t)nd->out.pages << PAGE_SHIFT)
		return NULL;
	i = noxs_zone_get(&nd->out, PFN_UP(size));
	if (i < 0)
		return NULL;
	*addr = noxs_zone_addr(&nd->out, i);
	return memset(noxs_pool + *addr, 0, PAGE_ALIGN(size));
}

static void noxs_free(struct device *dev, size_t size, void *vaddr,
		      dma_addr_t addr, unsigned long attrs)
{
	struct noxs_device *nd = dev_to_noxs(dev);

	noxs_zone_put(&nd->out, PFN_DOWN(addr) - nd->out.first, PFN_UP(size));
}

static size_t noxs_max_mapping_size(struct device *dev)
{
	struct noxs_device *nd = dev_to_noxs(dev);
	size_t pages = min(nd->out.pages, nd->in.pages);

	/* A quarter: a sender must not wait for all others to finish. */
	return clamp(pages / 4 << PAGE_SHIFT, PAGE_SIZE, NOXS_MAX_MAPPING);
}

static const struct dma_map_ops noxs_dma_ops = {
	.alloc = noxs_alloc,
	.free = noxs_free,
	.map_page = noxs_map_page,
	.unmap_page = noxs_unmap_page,
	.sync_single_for_cpu = noxs_sync_for_cpu,
	.sync_single_for_device = noxs_sync_for_device,
	.max_mapping_size = noxs_max_mapping_size,
};

/* Requests and events (sections 4 and 6). */

/* Whether the host has given up the device. */
static bool noxs_host_failed(const struct noxs_device *nd)
{
	return READ_ONCE(nd->entry->host_status) & NOXS_HOST_NEEDS_RESET;
}

/* Make every further use of the device's queues fail. */
static void noxs_break(struct noxs_device *nd)
{
	unsigned long flags;
	int q;

	spin_lock_irqsave(&nd->vq_lock, flags);
	nd->dead = true;
	for (q = 0; q < NOXS_MAX_QUEUES; q++)
		if (nd->vqs[q])
			__virtqueue_break(nd->vqs[q]);
	spin_unlock_irqrestore(&nd->vq_lock, flags);
}

/*
 * Tell the host about a new device status and wait until it has acted on it.
 * The device is dead afterwards if the host does not answer in time.
 */
static int noxs_request(struct noxs_device *nd, u8 status)
{
	struct noxs_entry *entry = nd->entry;
	int ret = 0;

	might_sleep();
	mutex_lock(&nd->lock);
	WRITE_ONCE(entry->status, status);
	if (nd->dead) {
		ret = -EIO;
		goto out;
	}
	nd->seq++;
	/* Queue fields and status are visible before the request is. */
	virt_store_release(&entry->req_seq, nd->seq);
	notify_remote_via_evtchn(nd->port);

	/*
	 * At the end of the domain the back-end may have gone first. There is
	 * nothing to wait for: nobody uses the pool for anything else again.
	 */
	if (system_state > SYSTEM_RUNNING)
		goto out;

	if (!wait_event_timeout(nd->wait,
				virt_load_acquire(&entry->ack_seq) == nd->seq,
				NOXS_REQUEST_TIMEOUT)) {
		pr_err("device %u: host did not answer within %u s, status %#x\n",
		       (unsigned int)(entry - noxs_page->entries),
		       NOXS_REQUEST_TIMEOUT / HZ, status);
		noxs_break(nd);
		ret = -ETIMEDOUT;
	}
out:
	mutex_unlock(&nd->lock);
	return ret;
}

static void noxs_config_event(struct noxs_device *nd)
{
	u32 generation = READ_ONCE(nd->entry->config_generation);
	unsigned long flags;
	bool changed;

	spin_lock_irqsave(&nd->vq_lock, flags);
	changed = nd->live && generation != nd->generation;
	if (changed)
		nd->generation = generation;
	spin_unlock_irqrestore(&nd->vq_lock, flags);
	if (changed)
		virtio_config_changed(&nd->vdev);
}

static irqreturn_t noxs_interrupt(int irq, void *data)
{
	struct noxs_device *nd = data;
	unsigned long flags;
	int q;

	wake_up(&nd->wait);

	if (noxs_host_failed(nd) && !READ_ONCE(nd->dead)) {
		pr_err("device %u: host has given up the device\n",
		       (unsigned int)(nd->entry - noxs_page->entries));
		noxs_break(nd);
	}

	spin_lock_irqsave(&nd->vq_lock, flags);
	for (q = 0; q < NOXS_MAX_QUEUES; q++)
		if (nd->vqs[q])
			vring_interrupt(irq, nd->vqs[q]);
	spin_unlock_irqrestore(&nd->vq_lock, flags);

	noxs_config_event(nd);
	return IRQ_HANDLED;
}

static bool noxs_notify(struct virtqueue *vq)
{
	notify_remote_via_evtchn(to_noxs(vq->vdev)->port);
	return true;
}

/* The operations of a virtio transport. */

static void noxs_get(struct virtio_device *vdev, unsigned int offset,
		     void *buf, unsigned int len)
{
	struct noxs_device *nd = to_noxs(vdev);

	if (WARN_ON_ONCE(offset > nd->config_len ||
			 len > nd->config_len - offset)) {
		memset(buf, 0, len);
		return;
	}
	memcpy(buf, nd->entry->config + offset, len);
	/* The caller reads the generation next. */
	virt_rmb();
}

static void noxs_set(struct virtio_device *vdev, unsigned int offset,
		     const void *buf, unsigned int len)
{
	dev_warn_once(&vdev->dev, "configuration space is read-only\n");
}

static u32 noxs_generation(struct virtio_device *vdev)
{
	struct noxs_device *nd = to_noxs(vdev);
	unsigned int tries = 0;
	u32 generation;

	/* Odd: the host is in the middle of a change, which takes it no time. */
	do {
		generation = READ_ONCE(nd->entry->config_generation);
		cpu_relax();
	} while ((generation & 1) && ++tries < NOXS_GENERATION_TRIES);
	/* Configuration space is read after the generation. */
	virt_rmb();
	return generation;
}

static u8 noxs_get_status(struct virtio_device *vdev)
{
	struct noxs_device *nd = to_noxs(vdev);
	u8 status = nd->status;

	/* To the virtio core this is how a device refuses the features. */
	if (status && (READ_ONCE(nd->dead) || noxs_host_failed(nd)))
		status &= ~VIRTIO_CONFIG_S_FEATURES_OK;
	return status;
}

static void noxs_set_status(struct virtio_device *vdev, u8 status)
{
	struct noxs_device *nd = to_noxs(vdev);
	u8 news = status & ~nd->status;

	nd->status = status;
	if (news & (VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK |
		    VIRTIO_CONFIG_S_FAILED))
		noxs_request(nd, status);
	else
		WRITE_ONCE(nd->entry->status, status);

	if ((news & VIRTIO_CONFIG_S_DRIVER_OK) && noxs_host_failed(nd)) {
		dev_err(&vdev->dev, "host refused the queues\n");
		noxs_break(nd);
	}
}

static void noxs_reset(struct virtio_device *vdev)
{
	struct noxs_device *nd = to_noxs(vdev);

	/* Nothing to undo: probe has reset the device already. */
	if (!nd->status)
		return;
	nd->status = 0;
	noxs_request(nd, 0);
	/* No callback is under way once this returns. */
	synchronize_irq(nd->irq);
}

static u64 noxs_get_features(struct virtio_device *vdev)
{
	return to_noxs(vdev)->features;
}

static int noxs_finalize_features(struct virtio_device *vdev)
{
	vring_transport_features(vdev);
	/* Never offered, but cheap to be sure of. */
	__virtio_clear_bit(vdev, VIRTIO_RING_F_INDIRECT_DESC);
	__virtio_clear_bit(vdev, VIRTIO_F_RING_PACKED);

	if (!__virtio_test_bit(vdev, VIRTIO_F_VERSION_1) ||
	    !__virtio_test_bit(vdev, VIRTIO_F_ACCESS_PLATFORM)) {
		dev_err(&vdev->dev, "host offers features %#llx only\n",
			vdev->features);
		return -EINVAL;
	}
	WRITE_ONCE(to_noxs(vdev)->entry->driver_features, vdev->features);
	return 0;
}

static struct virtqueue *noxs_setup_vq(struct noxs_device *nd, unsigned int q,
				       const struct virtqueue_info *info)
{
	struct noxs_queue *queue;
	struct virtqueue *vq;
	u32 num;

	if (q >= nd->num_queues)
		return ERR_PTR(-ENOENT);
	queue = &nd->entry->queues[q];
	num = READ_ONCE(queue->num_max);
	if (!num)
		return ERR_PTR(-ENOENT);
	if (num > NOXS_MAX_QUEUE_SIZE || !is_power_of_2(num))
		return ERR_PTR(-EINVAL);

	vq = vring_create_virtqueue(q, num, SMP_CACHE_BYTES, &nd->vdev, true,
				    true, info->ctx, noxs_notify,
				    info->callback, info->name);
	if (!vq)
		return ERR_PTR(-ENOMEM);
	vq->num_max = num;

	WRITE_ONCE(queue->num, virtqueue_get_vring_size(vq));
	WRITE_ONCE(queue->desc, virtqueue_get_desc_addr(vq));
	WRITE_ONCE(queue->avail, virtqueue_get_avail_addr(vq));
	WRITE_ONCE(queue->used, virtqueue_get_used_addr(vq));
	WRITE_ONCE(queue->ready, 1);

	spin_lock_irq(&nd->vq_lock);
	nd->vqs[q] = vq;
	spin_unlock_irq(&nd->vq_lock);
	return vq;
}

static void noxs_del_vqs(struct virtio_device *vdev)
{
	struct noxs_device *nd = to_noxs(vdev);
	struct virtqueue *vq, *next;

	list_for_each_entry_safe(vq, next, &vdev->vqs, list) {
		spin_lock_irq(&nd->vq_lock);
		nd->vqs[vq->index] = NULL;
		spin_unlock_irq(&nd->vq_lock);
		WRITE_ONCE(nd->entry->queues[vq->index].ready, 0);
		vring_del_virtqueue(vq);
	}
}

static int noxs_find_vqs(struct virtio_device *vdev, unsigned int nvqs,
			 struct virtqueue *vqs[],
			 struct virtqueue_info vqs_info[],
			 struct irq_affinity *desc)
{
	struct noxs_device *nd = to_noxs(vdev);
	unsigned int i, q = 0;
	int err;

	for (i = 0; i < nvqs; i++) {
		if (!vqs_info[i].name) {
			vqs[i] = NULL;
			continue;
		}
		vqs[i] = noxs_setup_vq(nd, q++, &vqs_info[i]);
		if (IS_ERR(vqs[i])) {
			err = PTR_ERR(vqs[i]);
			dev_err(&vdev->dev, "queue %u (%s): error %d\n", q - 1,
				vqs_info[i].name, err);
			noxs_del_vqs(vdev);
			return err;
		}
	}
	return 0;
}

static void noxs_synchronize_cbs(struct virtio_device *vdev)
{
	synchronize_irq(to_noxs(vdev)->irq);
}

static const char *noxs_bus_name(struct virtio_device *vdev)
{
	return dev_name(vdev->dev.parent);
}

static const struct virtio_config_ops noxs_config_ops = {
	.get = noxs_get,
	.set = noxs_set,
	.generation = noxs_generation,
	.get_status = noxs_get_status,
	.set_status = noxs_set_status,
	.reset = noxs_reset,
	.find_vqs = noxs_find_vqs,
	.del_vqs = noxs_del_vqs,
	.synchronize_cbs = noxs_synchronize_cbs,
	.get_features = noxs_get_features,
	.finalize_features = noxs_finalize_features,
	.bus_name = noxs_bus_name,
};

/* Finding the devices (section 2). */

/* Copy and check what the toolstack wrote; @pool_pages bounds the section. */
static int noxs_read_entry(struct noxs_device *nd, u32 pool_pages)
{
	struct noxs_entry *entry = nd->entry;
	u32 first = READ_ONCE(entry->section_off);
	u32 out = READ_ONCE(entry->out_pages);
	u32 in = READ_ONCE(entry->in_pages);
	int err;

	nd->port = READ_ONCE(entry->port);
	nd->num_queues = READ_ONCE(entry->num_queues);
	nd->config_len = READ_ONCE(entry->config_len);
	nd->features = READ_ONCE(entry->device_features);
	nd->generation = READ_ONCE(entry->config_generation);
	nd->seq = READ_ONCE(entry->req_seq);
	nd->vdev.id.device = READ_ONCE(entry->device_id);
	nd->vdev.id.vendor = VIRTIO_DEV_ANY_ID;

	if (!nd->port || !nd->num_queues || nd->num_queues > NOXS_MAX_QUEUES ||
	    nd->config_len > NOXS_CONFIG_SIZE || !out || !in ||
	    first > pool_pages || out > pool_pages - first ||
	    in > pool_pages - first - out)
		return -EINVAL;

	err = noxs_zone_init(&nd->out, first, out);
	if (!err)
		err = noxs_zone_init(&nd->in, first + out, in);
	return err;
}

static void noxs_release(struct device *dev)
{
	struct noxs_device *nd = dev_to_noxs(dev);

	if (nd->irq)
		unbind_from_irqhandler(nd->irq, nd);
	noxs_zone_free(&nd->out);
	noxs_zone_free(&nd->in);
	kfree(nd);
}

/* vdev is part of its parent, which it keeps alive. */
static void noxs_release_vdev(struct device *dev)
{
}

static struct noxs_device *noxs_new(unsigned int index)
{
	struct noxs_device *nd = kzalloc(sizeof(*nd), GFP_KERNEL);

	if (!nd)
		return NULL;
	mutex_init(&nd->lock);
	spin_lock_init(&nd->vq_lock);
	init_waitqueue_head(&nd->wait);
	nd->entry = &noxs_page->entries[index];

	device_initialize(&nd->dev);
	nd->dev.release = noxs_release;
	nd->dev.coherent_dma_mask = DMA_BIT_MASK(64);
	nd->dev.dma_mask = &nd->dev.coherent_dma_mask;
	set_dma_ops(&nd->dev, &noxs_dma_ops);

	nd->vdev.dev.parent = &nd->dev;
	nd->vdev.dev.release = noxs_release_vdev;
	nd->vdev.config = &noxs_config_ops;
	return nd;
}

static int noxs_add(unsigned int index, u32 pool_pages)
{
	struct noxs_device *nd = noxs_new(index);
	int err;

	if (!nd)
		return -ENOMEM;
	err = dev_set_name(&nd->dev, "noxs%u", index);
	if (err)
		goto put;
	err = noxs_read_entry(nd, pool_pages);
	if (err)
		goto put;

	err = bind_evtchn_to_irqhandler(nd->port, noxs_interrupt, 0,
					dev_name(&nd->dev), nd);
	if (err < 0)
		goto put;
	nd->irq = err;

	/* A host that does not answer this one would stall every step. */
	err = noxs_request(nd, 0);
	if (err)
		goto put;

	err = device_add(&nd->dev);
	if (err)
		goto put;
	err = register_virtio_device(&nd->vdev);
	if (err) {
		put_device(&nd->vdev.dev);
		device_del(&nd->dev);
		goto put;
	}
	spin_lock_irq(&nd->vq_lock);
	nd->live = true;
	spin_unlock_irq(&nd->vq_lock);
	noxs_config_event(nd);
	return 0;
put:
	put_device(&nd->dev);
	return err;
}

/* The end of the domain (section 5). */

static void noxs_set_guest_state(u32 state)
{
	WRITE_ONCE(noxs_page->header.guest_state, state);
	if (noxs_doorbell)
		notify_remote_via_evtchn(noxs_doorbell);
}

static int noxs_on_panic(struct notifier_block *nb, unsigned long event, void *p)
{
	noxs_set_guest_state(NOXS_GUEST_PANIC);
	return NOTIFY_DONE;
}

static int noxs_on_reboot(struct notifier_block *nb, unsigned long event, void *p)
{
	noxs_set_guest_state(event == SYS_RESTART ? NOXS_GUEST_REBOOT :
						    NOXS_GUEST_POWEROFF);
	return NOTIFY_DONE;
}

static struct notifier_block noxs_panic_nb = { .notifier_call = noxs_on_panic };
static struct notifier_block noxs_reboot_nb = { .notifier_call = noxs_on_reboot };

/* Early, so that the first program already finds a seeded generator. */
static int __init noxs_early_init(void)
{
	struct noxs_page *page;
	u8 seed[NOXS_SEED_SIZE];

	if (!xen_pv_domain() || xen_initial_domain() ||
	    !xen_start_info->store_mfn || xen_start_info->store_evtchn)
		return 0;
	page = mfn_to_virt(xen_start_info->store_mfn);
	if (!noxs_header_valid(&page->header))
		return 0;
	noxs_page = page;
	noxs_pool = (u8 *)page + PAGE_SIZE;
	noxs_doorbell = READ_ONCE(page->header.doorbell_port);

	memcpy(seed, page->header.seed, sizeof(seed));
	memzero_explicit(page->header.seed, sizeof(page->header.seed));
	if (memchr_inv(seed, 0, sizeof(seed)))
		add_bootloader_randomness(seed, sizeof(seed));
	memzero_explicit(seed, sizeof(seed));

	atomic_notifier_chain_register(&panic_notifier_list, &noxs_panic_nb);
	register_reboot_notifier(&noxs_reboot_nb);
	return 0;
}
early_initcall(noxs_early_init);

static int __init noxs_init(void)
{
	u32 count, pool_pages, i;
	int err;

	if (!noxs_page)
		return 0;
	pool_pages = READ_ONCE(noxs_page->header.pool_pages);
	count = READ_ONCE(noxs_page->header.device_count);
	if (pool_pages > NOXS_MAX_POOL_PAGES || count > NOXS_MAX_DEVICES) {
		pr_err("device page is damaged: %u devices, %u pages\n", count,
		       pool_pages);
		return 0;
	}
	for (i = 0; i < count; i++) {
		if (!READ_ONCE(noxs_page->entries[i].device_id))
			continue;
		err = noxs_add(i, pool_pages);
		if (err)
			pr_err("device %u: error %d\n", i, err);
	}
	noxs_set_guest_state(NOXS_GUEST_UP);
	return 0;
}
device_initcall(noxs_init);
