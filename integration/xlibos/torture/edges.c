// SPDX-License-Identifier: GPL-2.0
/*
 * What only few programs rely on: arithmetic flags that a system call keeps, the bytes
 * of the code behind a signal handler, opcodes that are invalid, and code in cores.
 */
#include "torture.h"

#include <elf.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define LIMIT 5			/* what the argument is compared with before the call */
#define FUNCTION 64		/* bytes of one */

/* How a function says whether its argument is below LIMIT. */
static const struct user {
	const char *name;
	unsigned char code[20];	/* behind the call; the answer in eax */
	int n;
	bool needs;		/* the flags from before the call */
} users[] = {
	{ "setb", { 0x0f, 0x92, 0xc0, 0x0f, 0xb6, 0xc0 }, 6, true },
	{ "jb", { 0xb8, 1, 0, 0, 0, 0x72, 2, 0x31, 0xc0 }, 9, true },
	{ "sbb", { 0x19, 0xc0, 0xf7, 0xd8 }, 4, true },
	{ "adc", { 0xb8, 0, 0, 0, 0, 0x83, 0xd0, 0 }, 8, true },
	{ "cmovb", { 0xb9, 1, 0, 0, 0, 0xb8, 0, 0, 0, 0, 0x0f, 0x42, 0xc1 }, 13, true },
	/* lea, inc and a shift in between: inc keeps the one that is used, the shift all */
	{ "setb later", { 0x48, 0x8d, 0x4f, 1, 0xff, 0xc1, 0xc0, 0xe1, 0, 0x0f, 0x92, 0xc0, 0x0f, 0xb6, 0xc0 }, 15, true },
	{ "pushf", { 0x9c, 0x58, 0x83, 0xe0, 1 }, 5, true },
	{ "a new comparison", { 0x48, 0x83, 0xff, LIMIT, 0x0f, 0x92, 0xc0, 0x0f, 0xb6, 0xc0 }, 10, false },
	{ "another sum", { 0x31, 0xc0, 0x48, 0x83, 0xef, LIMIT, 0x83, 0xd0, 0 }, 9, false },
};

static const enum form forms[] = { FORM_ABS, FORM_NOP, FORM_MOV };

static void flags(void)
{
	unsigned char *code = code_pages(PAGE), *p;

	for (unsigned int u = 0; u < ARRAY_SIZE(users); u++)
		for (unsigned int f = 0; f < ARRAY_SIZE(forms); f++) {
			unsigned char *start = code + (u * ARRAY_SIZE(forms) + f) * FUNCTION;

			p = start;
			BYTES(0xb8, SYS_getpid, 0, 0, 0);
			BYTES(0x48, 0x83, 0xff, LIMIT);		/* cmp $LIMIT, %rdi */
			p = put_form(p, forms[f], SYS_getpid, MOVE);
			memcpy(p, users[u].code, users[u].n);
			p += users[u].n;
			BYTES(0xc3);
		}
	seal(code, PAGE);
	for (unsigned int u = 0; u < ARRAY_SIZE(users); u++)
		for (unsigned int f = 0; f < ARRAY_SIZE(forms); f++) {
			unsigned char *start = code + (u * ARRAY_SIZE(forms) + f) * FUNCTION, form[16];
			int n = put_form(form, forms[f], SYS_getpid, MOVE) - form;
			long (*below)(long) = (void *)start;

			for (long i = 0; i < 2 * HOT; i++)
				if (below(i % 10) != (i % 10 < LIMIT)) {
					bad("%s; syscall; %s: %ld below %d: %ld", form_name[forms[f]], users[u].name, i % 10,
					    LIMIT, below(i % 10));
					break;
				}
			if (!memcmp(start + 9, form, n) != (users[u].needs || !rewriting()))
				bad("%s; syscall; %s: the site was %srewritten", form_name[forms[f]], users[u].name,
				    users[u].needs ? "" : "not ");
		}
	munmap(code, PAGE);
	ran(ARRAY_SIZE(users) * ARRAY_SIZE(forms));
}

static volatile int handled;

static void handler(int sig)
{
	(void)sig;
	handled++;
}

/* Debuggers and unwinders know the code that a handler returns to by what it is. */
static void trampoline(void)
{
	static const unsigned char code[] = { 0x48, 0xc7, 0xc0, SYS_rt_sigreturn, 0, 0, 0, 0x0f, 0x05 };
	struct {
		void *handler;
		unsigned long flags;
		unsigned char *restorer;
		unsigned long mask;
	} action;

	signal(SIGUSR1, handler);
	for (int n = 0; n < 2 * HOT; n++) {
		pid_t child;

		raise(SIGUSR1);
		/* In a process that has not executed it yet, too. */
		if (n % HOT)
			continue;
		child = forked();
		if (!child) {
			raise(SIGUSR1);
			_exit(0);
		}
		if (reap(child))
			bad("a child with a signal handler did not end well");
	}
	if (raw(SYS_rt_sigaction, SIGUSR1, 0, (long)&action, 8, 0, 0))
		fail("rt_sigaction");
	if (memcmp(action.restorer, code, sizeof(code)))
		bad("the code behind a signal handler is %02x %02x %02x %02x…, not what it was", action.restorer[0],
		    action.restorer[1], action.restorer[2], action.restorer[3]);
	if (handled < 2 * HOT)
		bad("%d signals handled", handled);
	handled = 0;
	ran(1);
}

/*
 * Invalid instructions that are like valid ones. Emulators take some for these, and come
 * to the ud2 behind them.
 */
static void invalid(void)
{
	static const unsigned char code[][16] = {
		{ 0xc7, 0xc8, 0, 0, 0, 0, 0x0f, 0x0b }, { 0x48, 0xc7, 0xc8, 0, 0, 0, 0, 0x0f, 0x0b },
		{ 0x41, 0xc6, 0xc8, 0, 0x0f, 0x0b }, { 0x0f, 0x0b }, { 0x48, 0x0f, 0x0b },
		{ 0x8d, 0xc0, 0x0f, 0x0b }, { 0x48, 0x8d, 0xc0, 0x0f, 0x0b }, { 0x60 }, { 0x2e, 0x60 },
	};
	unsigned char *page = code_pages(PAGE);
	struct site s;

	put_site(page + PAGE / 2, &s, FORM_ABS, SYS_getpid);
	for (unsigned int i = 0; i < ARRAY_SIZE(code); i++)
		memcpy(page + 16 * i, code[i], sizeof(code[i]));
	seal(page, PAGE);
	for (int n = 0; n < HOT; n++)
		call0(&s);
	for (unsigned int i = 0; i < ARRAY_SIZE(code); i++) {
		pid_t child = forked();
		int status;

		if (!child) {
			no_crash_reports();
			alarm(30);
			((void (*)(void))(page + 16 * i))();
			_exit(1);
		}
		status = reap(child);
		if (status != 256 + SIGILL)
			bad("%02x %02x %02x: status %d, want an illegal instruction", code[i][0], code[i][1], code[i][2], status);
	}
	munmap(page, PAGE);
	ran(ARRAY_SIZE(code));
}

/* in_core is where a core file, in memory, has what was at address, or NULL. */
static const unsigned char *in_core(const unsigned char *core, unsigned long address)
{
	const Elf64_Ehdr *e = (const void *)core;
	const Elf64_Phdr *p = (const void *)(core + e->e_phoff);

	for (int i = 0; i < e->e_phnum; i++)
		if (p[i].p_type == PT_LOAD && address - p[i].p_vaddr < p[i].p_filesz)
			return core + p[i].p_offset + (address - p[i].p_vaddr);
	return NULL;
}

/* crash makes a core in the folder, with hot sites. */
static void crash(const char *folder, const struct site *s, int n)
{
	const struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };

	no_crash_reports();
	if (chdir(folder) || setrlimit(RLIMIT_CORE, &all))
		fail("prepare for a core");
	for (int i = 0; i < n; i++)
		heat(&s[i]);
	raise(SIGSEGV);
	_exit(1);
}

/* A debugger finds the program's own code in its core. */
static void cores(void)
{
	char folder[] = "/tmp/torture-XXXXXX", name[64], pattern[64] = "";
	unsigned char *page, code[PAGE];
	const unsigned char *core, *found;
	struct site s[FORMS];
	struct stat st;
	int n, status, fd = open("/proc/sys/kernel/core_pattern", O_RDONLY | O_CLOEXEC);
	pid_t pid;

	if (fd < 0 || read(fd, pattern, sizeof(pattern) - 1) < 1)
		fail("core_pattern");
	close(fd);
	if (strcmp(pattern, "core\n")) {
		if (kernel_mode() != MODE_NONE)
			bad("cores go to %s", pattern);
		note("cores go elsewhere");
		return;
	}
	page = code_pages(PAGE);
	n = put_sites(page + 128, s, SYS_lseek);
	memcpy(code, page, PAGE);
	seal(page, PAGE);
	if (!mkdtemp(folder))
		fail("mkdtemp");
	pid = forked();
	if (!pid)
		crash(folder, s, n);
	if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status) || !WCOREDUMP(status))
		bad("no core: status %#x", status);
	snprintf(name, sizeof(name), "%s/core", folder);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		snprintf(name, sizeof(name), "%s/core.%d", folder, pid);
		fd = open(name, O_RDONLY | O_CLOEXEC);
	}
	if (fd < 0 || fstat(fd, &st))
		fail("open a core");
	core = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (core == MAP_FAILED)
		fail("mmap");
	for (int i = 0; i < n; i++) {
		found = in_core(core, (unsigned long)s[i].start);
		if (!found || memcmp(found, code + (s[i].start - page), s[i].after - s[i].start))
			bad("%s: a core %s", form_name[s[i].form], found ? "has other code" : "has no code");
	}
	munmap((void *)core, st.st_size);
	close(fd);
	unlink(name);
	rmdir(folder);
	munmap(page, PAGE);
	ran(n);
}

const struct test tests[] = {
	{ "flags", flags },
	{ "trampoline", trampoline },
	{ "invalid", invalid },
	{ "cores", cores },
	{ NULL, NULL },
};
