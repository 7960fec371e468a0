// SPDX-License-Identifier: GPL-2.0
/* Filters that are set when sites are hot. */
#include "torture.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>

#define FIELD(f) offsetof(struct seccomp_data, f)

static struct site site[FORMS], allowed[FORMS]; /* getuid, getppid */
static int n_sites, n_allowed;

static void build(void)
{
	unsigned char *code;

	if (n_sites)
		return;
	code = code_pages(PAGE);
	n_sites = put_sites(code, site, SYS_getuid);
	n_allowed = put_sites(code + FORMS * MAX_SITE, allowed, SYS_getppid);
	seal(code, PAGE);
}

static void set_filter(struct sock_filter *f, int n)
{
	struct sock_fprog program = { n, f };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		_exit(98);
}

/* filter_nr has what happen to system call nr. */
static void filter_nr(int nr, unsigned int what)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, what),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	set_filter(f, ARRAY_SIZE(f));
}

/* in_child calls f in a child when all sites are hot, and returns how it ended. */
static int in_child(int (*f)(const struct site *), const struct site *s)
{
	pid_t pid;

	build();
	for (int i = 0; i < n_sites; i++)
		works_n(&site[i], HOT);
	for (int i = 0; i < n_allowed; i++)
		works_n(&allowed[i], HOT);
	pid = forked();
	if (!pid) {
		no_crash_reports();
		learn();
		_exit(f(s));
	}
	ran(1);
	return reap(pid);
}

/* others_work makes the calls that are allowed. */
static bool others_work(void)
{
	for (int i = 0; i < n_allowed; i++)
		if (!works_n(&allowed[i], HOT))
			return false;
	return true;
}

static int with_errno(const struct site *unused)
{
	(void)unused;
	filter_nr(SYS_getuid, SECCOMP_RET_ERRNO | 77);
	for (int n = 0; n < HOT; n++)
		for (int i = 0; i < n_sites; i++)
			if (call0(&site[i]) != -77)
				return 1 + site[i].form;
	return others_work() ? 0 : 97;
}

/* Without a tracer the call is not made. */
static int with_trace(const struct site *unused)
{
	(void)unused;
	filter_nr(SYS_getuid, SECCOMP_RET_TRACE);
	for (int i = 0; i < n_sites; i++)
		if (call0(&site[i]) != -ENOSYS)
			return 1 + site[i].form;
	return others_work() ? 0 : 97;
}

static void errors(void)
{
	int status = in_child(with_errno, NULL);

	if (status)
		bad("errno: status %d", status);
	status = in_child(with_trace, NULL);
	if (status)
		bad("trace: status %d", status);
}

static const struct site *trapping;
static volatile int wrong_traps, right_traps;

static void trapped(int sig, siginfo_t *info, void *context)
{
	greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)sig;
	if (info->si_call_addr != trapping->after || info->si_syscall != trapping->nr ||
	    info->si_arch != AUDIT_ARCH_X86_64 || info->si_errno != 5 ||
	    r[REG_RIP] != (greg_t)trapping->after || r[REG_RAX] != trapping->nr)
		wrong_traps++;
	right_traps++;
	r[REG_RAX] = 4321;
}

static int with_trap(const struct site *unused)
{
	struct sigaction sa = { .sa_sigaction = trapped, .sa_flags = SA_SIGINFO };

	(void)unused;
	sigaction(SIGSYS, &sa, NULL);
	filter_nr(SYS_getuid, SECCOMP_RET_TRAP | 5);
	for (int n = 0; n < HOT; n++)
		for (int i = 0; i < n_sites; i++) {
			trapping = &site[i];
			if (call0(trapping) != 4321)
				return 1 + site[i].form;
		}
	if (wrong_traps)
		return 96;
	return others_work() && right_traps == HOT * n_sites ? 0 : 97;
}

static void traps(void)
{
	int status = in_child(with_trap, NULL);

	if (status)
		bad("status %d", status);
}

static int killed(const struct site *s)
{
	filter_nr(SYS_getuid, SECCOMP_RET_KILL_PROCESS);
	if (!others_work())
		return 97;
	call0(s);
	return 95;
}

static int strict(const struct site *s)
{
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))
		return 98;
	call0(s);
	raw1(SYS_exit, 95);
	return 95;
}

static void kills(void)
{
	build();
	for (int i = 0; i < n_sites; i++) {
		int status = in_child(killed, &site[i]);

		if (status != 256 + SIGSYS)
			bad("%s: status %d, want signal %d", form_name[site[i].form], status, SIGSYS);
		status = in_child(strict, &site[i]);
		if (status != 256 + SIGKILL)
			bad("%s: status %d in strict mode, want signal %d", form_name[site[i].form], status, SIGKILL);
	}
}

/* A filter that looks at where the call comes from, and at its arguments. */
static int with_place(const struct site *s)
{
	unsigned long ip = (unsigned long)s->after;
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getuid, 0, 9),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(instruction_pointer)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ip, 0, 6),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(instruction_pointer) + 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ip >> 32, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(args[3])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x1234, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 50),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 51),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 52),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	set_filter(f, ARRAY_SIZE(f));
	for (int n = 0; n < HOT; n++) {
		if (s->call(0, 0, 0, 0x1234, 0, 0) != -50)
			return 1;
		if (s->call(0, 0, 0, 0x4321, 0, 0) != -51)
			return 2;
		if (raw0(SYS_getuid) != -52)
			return 3;
	}
	return others_work() ? 0 : 97;
}

static void places(void)
{
	build();
	for (int i = 0; i < n_sites; i++) {
		int status = in_child(with_place, &site[i]);

		if (status)
			bad("%s: status %d", form_name[site[i].form], status);
	}
}

/* Children and what they execute have the filter, too. */
static int inherited(const struct site *unused)
{
	pid_t pid;
	int status;

	(void)unused;
	filter_nr(SYS_getuid, SECCOMP_RET_ERRNO | 77);
	pid = forked();
	if (!pid) {
		for (int n = 0; n < HOT; n++)
			for (int i = 0; i < n_sites; i++)
				if (call0(&site[i]) != -77)
					_exit(1 + site[i].form);
		_exit(0);
	}
	status = reap(pid);
	return status < 256 ? status : 94;
}

static void children(void)
{
	int status = in_child(inherited, NULL);

	if (status)
		bad("status %d", status);
}

const struct test tests[] = {
	{ "errors", errors },
	{ "traps", traps },
	{ "kills", kills },
	{ "places", places },
	{ "children", children },
	{ NULL, NULL },
};
