/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The smallest guest that proves a domain was built right, position independent,
 * linked at 0xffffffff80100000. guest.bin is this file assembled; a test compares.
 *
 * It checks its zeroed memory, start_info, the device page, prints
 * "xentest: <command line>\n" on the console ring, rings the doorbell, and then
 * does what the first letter of the command line says:
 *   p power off, r reboot, c crash by an illegal instruction,
 *   i wait for an event on the console port, then power off,
 *   s spin for ever.
 * A failed check is a crash as well.
 */
	.set VIRT_BASE, 0xffffffff80000000
	.set M2P, 0xffff800000000000		/* machine_to_phys, mapped by Xen */
	.set HC_SCHED, 29
	.set HC_EVTCHN, 32
	.set BSS, 0x1000			/* bss begins a page after the text */
	.set NOXS_MAGIC, 0x53584f4e

	.text
	.globl _start
_start:
	cld
	mov %rsi, %rbp				/* start_info */
	lea _start+BSS(%rip), %rdi		/* bss must be zero */
	mov $0x2000, %ecx
	xor %eax, %eax
	repe scasb
	jne crash

	movabs $0x2d302e332d6e6578, %rax	/* "xen-3.0-" */
	cmp %rax, (%rbp)
	jne crash
	cmpl $0, 64(%rbp)			/* no XenStore */
	jne crash

	mov 56(%rbp), %rax			/* store_mfn is the device page */
	call page_of_mfn
	mov %rax, %r13
	cmpl $NOXS_MAGIC, (%r13)
	jne crash
	movl $1, 20(%r13)			/* guest_state: driver up */

	mov 72(%rbp), %rax			/* console ring */
	call page_of_mfn
	mov %rax, %r12
	lea 1024(%r12), %rdi
	lea hello(%rip), %rsi
	mov $9, %ecx
	rep movsb
	lea 128(%rbp), %rsi			/* command line, at most 1 KiB */
1:	lodsb
	test %al, %al
	jz 2f
	stosb
	jmp 1b
2:	movb $10, %al
	stosb
	lea 1024(%r12), %rax
	sub %rax, %rdi
	mov %edi, 3084(%r12)			/* out_prod */
	mov 80(%rbp), %eax
	call notify
	mov 16(%r13), %eax			/* doorbell */
	call notify

	mov 128(%rbp), %al
	xor %esi, %esi
	cmp $'p', %al
	je shutdown
	inc %esi
	cmp $'r', %al
	je shutdown
	cmp $'s', %al
	je spin
	cmp $'i', %al
	jne crash

	mov 80(%rbp), %eax			/* sched_poll on the console port */
	push %rax
	mov %rsp, %rax
	push $0					/* no timeout */
	push $1					/* one port */
	push %rax
	mov %rsp, %rsi
	mov $3, %edi
	mov $HC_SCHED, %eax
	syscall
	xor %esi, %esi

shutdown:					/* reason in esi */
	push %rsi
	mov %rsp, %rsi
	mov $2, %edi
	mov $HC_SCHED, %eax
	syscall
crash:	ud2
spin:	pause
	jmp spin

page_of_mfn:					/* rax: frame -> address */
	movabs $M2P, %rdx
	mov (%rdx,%rax,8), %rax
	shl $12, %rax
	add $VIRT_BASE, %rax
	ret

notify:						/* eax: port */
	push %rax
	mov %rsp, %rsi
	mov $4, %edi
	mov $HC_EVTCHN, %eax
	syscall
	pop %rax
	ret

hello:	.ascii "xentest: "
