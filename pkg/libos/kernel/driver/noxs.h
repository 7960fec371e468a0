/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The NoXS device page, version 1: the layout of docs/noxs.md, sections 2 and 5.
 *
 * The page is named by start_info.store_mfn. The pool follows it.
 * All fields are little endian, as is every machine that runs PV domains.
 */
#ifndef _XEN_NOXS_H
#define _XEN_NOXS_H

#include <linux/build_bug.h>
#include <linux/mm.h>
#include <linux/stddef.h>
#include <linux/types.h>

#define NOXS_MAGIC		0x53584f4e	/* the bytes "NOXS" */
#define NOXS_VERSION		1
#define NOXS_MAX_POOL_PAGES	65536
#define NOXS_MAX_DEVICES	15
#define NOXS_MAX_QUEUES		4
#define NOXS_CONFIG_SIZE	64
#define NOXS_SEED_SIZE		64

/* noxs_header.guest_state */
#define NOXS_GUEST_UP		1
#define NOXS_GUEST_PANIC	2
#define NOXS_GUEST_REBOOT	3
#define NOXS_GUEST_POWEROFF	4

/* noxs_entry.host_status */
#define NOXS_HOST_NEEDS_RESET	0x1

struct noxs_header {
	u32 magic;
	u32 version;
	u32 pool_pages;
	u32 device_count;
	u32 doorbell_port;
	u32 guest_state;
	u32 flags;
	u32 reserved[9];
	u8 seed[NOXS_SEED_SIZE];
};

struct noxs_queue {
	u32 num_max;
	u32 num;
	u32 ready;
	u32 reserved0;
	u32 desc;
	u32 avail;
	u32 used;
	u32 reserved1;
};

struct noxs_entry {
	u32 device_id;
	u32 port;
	u64 device_features;
	u64 driver_features;
	u32 status;
	u32 host_status;
	u32 num_queues;
	u32 config_len;
	u32 config_generation;
	u32 req_seq;
	u32 ack_seq;
	u32 section_off;
	u32 out_pages;
	u32 in_pages;
	struct noxs_queue queues[NOXS_MAX_QUEUES];
	u8 config[NOXS_CONFIG_SIZE];
};

struct noxs_page {
	struct noxs_header header;
	struct noxs_entry entries[NOXS_MAX_DEVICES];
};

/* Sizes and offsets are part of the contract with the host. */
static_assert(sizeof(struct noxs_header) == 128);
static_assert(offsetof(struct noxs_header, pool_pages) == 8);
static_assert(offsetof(struct noxs_header, device_count) == 12);
static_assert(offsetof(struct noxs_header, doorbell_port) == 16);
static_assert(offsetof(struct noxs_header, guest_state) == 20);
static_assert(offsetof(struct noxs_header, seed) == 64);

static_assert(sizeof(struct noxs_entry) == 256);
static_assert(offsetof(struct noxs_entry, port) == 4);
static_assert(offsetof(struct noxs_entry, device_features) == 8);
static_assert(offsetof(struct noxs_entry, driver_features) == 16);
static_assert(offsetof(struct noxs_entry, status) == 24);
static_assert(offsetof(struct noxs_entry, host_status) == 28);
static_assert(offsetof(struct noxs_entry, num_queues) == 32);
static_assert(offsetof(struct noxs_entry, config_len) == 36);
static_assert(offsetof(struct noxs_entry, config_generation) == 40);
static_assert(offsetof(struct noxs_entry, req_seq) == 44);
static_assert(offsetof(struct noxs_entry, ack_seq) == 48);
static_assert(offsetof(struct noxs_entry, section_off) == 52);
static_assert(offsetof(struct noxs_entry, out_pages) == 56);
static_assert(offsetof(struct noxs_entry, in_pages) == 60);
static_assert(offsetof(struct noxs_entry, queues) == 64);
static_assert(offsetof(struct noxs_entry, config) == 192);

static_assert(sizeof(struct noxs_queue) == 32);
static_assert(offsetof(struct noxs_queue, num) == 4);
static_assert(offsetof(struct noxs_queue, ready) == 8);
static_assert(offsetof(struct noxs_queue, desc) == 16);
static_assert(offsetof(struct noxs_queue, avail) == 20);
static_assert(offsetof(struct noxs_queue, used) == 24);

static_assert(offsetof(struct noxs_page, entries) == 128);
static_assert(sizeof(struct noxs_page) <= PAGE_SIZE);

/* Whether a page is a device page that this kernel understands. */
static inline bool noxs_header_valid(const struct noxs_header *h)
{
	return h->magic == NOXS_MAGIC && h->version == NOXS_VERSION &&
	       h->pool_pages <= NOXS_MAX_POOL_PAGES;
}

#endif /* _XEN_NOXS_H */
