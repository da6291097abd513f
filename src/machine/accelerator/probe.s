# The boot sector of the probe: says q in real, i in protected, m and g in long mode, by QEMU's debug console.
# as --64 probe.s -o probe.o && ld -Ttext=0x7c00 --oformat binary -o probe.bin probe.o
        .globl _start
        .code16
_start: cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7c00, %sp
        movb    $'q', %al
        outb    %al, $0xe9
        # One page of 2 MiB, from three tables at 0x1000.
        movw    $0x1000, %di
        xorw    %ax, %ax
        movw    $0x1800, %cx
        cld
        rep stosw
        movw    $0x2003, 0x1000
        movw    $0x3003, 0x2000
        movw    $0x0083, 0x3000
        lgdtl   gdtr
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $0x08, $prot
        .code32
prot:   movw    $0x10, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movb    $'i', %al
        outb    %al, $0xe9
        movl    %cr4, %eax
        orl     $0x20, %eax
        movl    %eax, %cr4
        movl    $0x1000, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx
        rdmsr
        orl     $0x100, %eax
        wrmsr
        movl    %cr0, %eax
        orl     $0x80000000, %eax
        movl    %eax, %cr0
        ljmpl   $0x18, $long
        .code64
long:   movb    $'m', %al
        outb    %al, $0xe9
        movb    $'g', %al
        outb    %al, $0xe9
1:      hlt
        jmp     1b
        .balign 8
gdt:    .quad   0
        .quad   0x00cf9a000000ffff
        .quad   0x00cf92000000ffff
        .quad   0x00af9a000000ffff
gdtr:   .word   31
        .long   gdt
        .org    510
        .word   0xaa55
