/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entry of the hostile kernel: ELF notes for pkg/xen/pv, a stack, hypercalls.
 * Events stay masked, as they are at the start: the kernel polls.
 */
#define NOTE(type, desc) \
	.balign 4; .long 4, 2f - 1f, type; .asciz "Xen"; 1: desc; 2: .balign 4

	.section .note.Xen, "a", @note
	NOTE(5, .asciz "xen-3.0")
	NOTE(6, .asciz "hostile")
	NOTE(3, .quad 0xffffffff80000000)	/* VIRT_BASE */
	NOTE(4, .quad 0xffffffff80000000)	/* PADDR_OFFSET, as ld gives paddr = vaddr */
	NOTE(1, .quad _start)
	NOTE(15, .quad 0x8000000000)		/* INIT_P2M */
	NOTE(16, .quad 1)			/* MOD_START_PFN */

	.text
	.globl _start
_start:
	cld
	lea stack_top(%rip), %rsp
	mov %rsi, %rdi
	call hostile_main
	ud2

	.globl hypercall			/* long hypercall(nr, a, b, c) */
hypercall:
	mov %rdi, %rax
	mov %rsi, %rdi
	mov %rdx, %rsi
	mov %rcx, %rdx
	syscall
	ret

	.bss
	.balign 4096
	.space 65536
stack_top:
	.section .note.GNU-stack, "", @progbits
