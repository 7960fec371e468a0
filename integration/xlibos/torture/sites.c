// SPDX-License-Identifier: GPL-2.0
/* Code that makes system calls, written at run time. */
#include "torture.h"

/* Where the call table is, and the slots before that of call 0. */
#define TABLE 0xff600000u /* sign-extended by the processor */
#define SLOT_OF_0 1

const char *const form_name[FORMS] = {
	[FORM_ABS] = "mov $nr, %eax",
	[FORM_NOP] = "mov $nr, %rax",
	[FORM_MOV] = "mov %reg, %reg",
	[FORM_STACK] = "mov d(%rsp), %rax",
	[FORM_CANCEL] = "mov %r11, 8(%rsp)",
	[FORM_JE] = "je; xor %eax, %eax",
	[FORM_BARE] = "nopl (%rax)",
	[FORM_CALL] = "call *table",
};

bool usable(enum form form, int nr)
{
	switch (form) {
	case FORM_JE:
		return nr == SYS_read;
	case FORM_CALL:
		return has_table() && nr >= 0 && nr < 480;
	default:
		return true;
	}
}

/* insn writes an instruction: n bytes, and 4 more of value if with_value. */
static unsigned char *insn(struct site *s, unsigned char *p, const char *bytes, int n,
			   bool with_value, unsigned int value)
{
	if (s)
		s->insn[s->insns++] = p;
	memcpy(p, bytes, n);
	p += n;
	if (with_value) {
		memcpy(p, &value, sizeof(value));
		p += sizeof(value);
	}
	return p;
}
#define INSN(bytes) (p = insn(s, p, bytes, sizeof(bytes) - 1, false, 0))
#define INSN_VALUE(bytes, value) (p = insn(s, p, bytes, sizeof(bytes) - 1, true, value))

static unsigned char *put_insns(struct site *s, unsigned char *p, enum form form, int nr, int detail)
{
	unsigned char mov[] = { 0x48, 0x89, 0xc0 }, load[] = { 0x48, 0x8b, 0x44, 0x24, detail };
	int src = detail & 15, dst = detail >> 4 & 15;

	switch (form) {
	case FORM_ABS:
		INSN_VALUE("\xb8", nr);
		break;
	case FORM_NOP:
		INSN_VALUE("\x48\xc7\xc0", nr);
		break;
	case FORM_MOV:
		mov[0] |= (src & 8) >> 1 | dst >> 3;
		mov[2] |= (src & 7) << 3 | (dst & 7);
		p = insn(s, p, (char *)mov, sizeof(mov), false, 0);
		break;
	case FORM_STACK:
		p = insn(s, p, (char *)load, sizeof(load), false, 0);
		break;
	case FORM_CANCEL:
		INSN("\x4c\x89\x5c\x24\x08");
		break;
	case FORM_JE:
		INSN("\x74\x7f"); /* never taken */
		INSN("\x31\xc0");
		break;
	case FORM_BARE:
		INSN("\x0f\x1f\x00");
		break;
	case FORM_CALL:
		return INSN_VALUE("\xff\x14\x25", TABLE + 8 * (SLOT_OF_0 + nr));
	case FORMS:
		abort();
	}
	return INSN("\x0f\x05");
}

unsigned char *put_form(unsigned char *p, enum form form, int nr, int detail)
{
	return put_insns(NULL, p, form, nr, detail);
}

unsigned char *put_site_with(unsigned char *p, struct site *s, enum form form, int nr, const void *then, int n)
{
	int detail = 0;

	memset(s, 0, sizeof(*s));
	s->form = form;
	s->nr = nr;
	s->call = (void *)p;
	/* The stack gets a frame where the form uses it. */
	if (form == FORM_STACK) {
		INSN_VALUE("\x68", nr);		/* push $nr */
		INSN("\x50");			/* push %rax */
		detail = 8;
	} else if (form == FORM_CANCEL) {
		INSN("\x48\x83\xec\x18");	/* sub $24, %rsp */
	}
	if (form == FORM_CANCEL || form == FORM_MOV || form == FORM_BARE)
		INSN_VALUE("\xb8", nr);
	/* The fourth argument. */
	if (form == FORM_MOV)
		detail = MOVE;
	else
		INSN("\x49\x89\xca");
	if (form == FORM_JE)
		INSN("\x48\x85\xe4");		/* test %rsp, %rsp */
	s->start = p;
	p = put_insns(s, p, form, nr, detail);
	s->after = p;
	memcpy(p, then, n);
	p += n;
	if (form == FORM_STACK)
		INSN("\x48\x83\xc4\x10");	/* add $16, %rsp */
	else if (form == FORM_CANCEL)
		INSN("\x48\x83\xc4\x18");
	INSN("\xc3");
	s->end = p;
	return p;
}

unsigned char *put_site(unsigned char *p, struct site *s, enum form form, int nr)
{
	return put_site_with(p, s, form, nr, "", 0);
}

int put_sites(unsigned char *p, struct site s[FORMS], int nr)
{
	int n = 0;

	for (int form = 0; form < FORMS; form++)
		if (usable(form, nr)) {
			put_site(p, &s[n++], form, nr);
			p += MAX_SITE;
		}
	return n;
}

unsigned char *code_pages(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		fail("mmap");
	return p;
}

void seal(unsigned char *p, size_t size)
{
	if (mprotect(p, size, PROT_READ | PROT_EXEC))
		fail("mprotect");
}

const int checked_nr[] = {
	SYS_getpid, SYS_getppid, SYS_getuid, SYS_getpgrp, SYS_lseek, SYS_read, SYS_pread64, SYS_mmap,
};
const int checked_nrs = ARRAY_SIZE(checked_nr);

static struct {
	long pid, ppid, uid, pgrp;
	int data; /* a file in which the word at n is word_at(n) */
} known = { .data = -1 };

static long word_at(long offset) { return offset * 0x0123456789abcdl + 1; }

void learn(void)
{
	known.pid = raw0(SYS_getpid);
	known.ppid = raw0(SYS_getppid);
	known.uid = raw0(SYS_getuid);
	known.pgrp = raw0(SYS_getpgrp);
	if (known.data >= 0)
		return;
	known.data = memfd_create("torture", MFD_CLOEXEC);
	for (long n = 0; n < 4 * PAGE; n += 8) {
		long word = word_at(n);

		if (write(known.data, &word, 8) != 8)
			fail("write to a memfd");
	}
}

bool site_works(const struct site *s)
{
	long got, want, word = 0;

	switch (s->nr) {
	case SYS_getpid:
		want = known.pid;
		got = call0(s);
		break;
	case SYS_getppid:
		want = known.ppid;
		got = call0(s);
		break;
	case SYS_getuid:
		want = known.uid;
		got = call0(s);
		break;
	case SYS_getpgrp:
		want = known.pgrp;
		got = call0(s);
		break;
	case SYS_lseek:
	case SYS_read:
		want = -EBADF;
		got = call3(s, -1, 0, 0);
		break;
	case SYS_pread64:
		want = 8;
		got = call4(s, known.data, &word, 8, 2 * PAGE);
		if (got == want && word != word_at(2 * PAGE))
			got = word;
		break;
	case SYS_mmap: /* all six arguments */
		got = s->call(0, PAGE, PROT_READ, MAP_PRIVATE, known.data, 3 * PAGE);
		want = word_at(3 * PAGE);
		if (got > 0) {
			void *p = (void *)got;

			got = *(long *)p;
			raw2(SYS_munmap, p, PAGE);
		}
		break;
	default:
		abort();
	}
	if (got == want)
		return true;
	bad("%s; syscall %d at %p: got %ld, want %ld", form_name[s->form], s->nr, (void *)s->start, got, want);
	return false;
}

bool works_n(const struct site *s, int n)
{
	while (n--)
		if (!site_works(s))
			return false;
	return true;
}

void heat(const struct site *s)
{
	for (int n = 0; n < HOT; n++)
		s->call(-1, -1, -1, -1, -1, -1);
}
