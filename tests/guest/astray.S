/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A guest that KVM cannot go on with: it says "astray" on COM1 and jumps to
 * the last MiB of the first GiB, which the loader maps but where a small guest
 * has neither RAM nor a device. KVM has no exit that fetches an instruction,
 * so that it is an internal error on every host; in kernel mode, as user mode
 * would get an exception.
 */
	.section .text.start, "ax"
	.code64
	.globl start
start:
	movl	$text, %esi
	movl	$text_end - text, %ecx
	movw	$0x3f8, %dx
	cld
	rep outsb
	movl	$0x3ff00000, %eax
	jmp	*%rax

	.section .rodata, "a"
text:	.ascii	"astray\n"
text_end:
