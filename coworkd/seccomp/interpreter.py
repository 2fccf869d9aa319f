"""A second reader of classic BPF: decodes, validates as the kernel does, and runs one program over `seccomp_data`.

Rules
- `decode_program` accepts exactly what the kernel's seccomp_check_filter() and bpf_check_classic() accept, so a program that passes here
  will not be refused with EINVAL by prctl(2); whatever they refuse is a `ProgramError` here.
- Jumps only go forward and inside the program, the last instruction returns: every run ends.
- Arithmetic is unsigned, 32 bits. Division by a zero X ends the program with 0 (KILL_THREAD), as in the kernel.

Not done: user notification, tracing, anything a return value leads to. Both our architectures are little-endian, and so is
the layout of the two halves of an argument here.

Sources: linux/filter.h, linux/seccomp.h (`struct seccomp_data`), kernel/seccomp.c, net/core/filter.c.
"""

from __future__ import annotations

import struct

MAX_INSTRUCTIONS = 4096
DATA_BYTES = 64
MEMORY_WORDS = 16
_WORD = 0xFFFF_FFFF
_RECORD = struct.Struct("=HBBI")

LD_IMM, LD_ABS, LD_MEM, LD_LEN = 0x00, 0x20, 0x60, 0x80
LDX_IMM, LDX_MEM, LDX_LEN = 0x01, 0x61, 0x81
ST, STX = 0x02, 0x03
JA, JEQ, JGT, JGE, JSET = 0x05, 0x15, 0x25, 0x35, 0x45
RET_K, RET_A = 0x06, 0x16
TAX, TXA = 0x07, 0x87
NEG = 0x84
FROM_X = 0x08
"""In the code of a jump or of arithmetic: the operand is X, not the constant."""
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, XOR = 0x04, 0x14, 0x24, 0x34, 0x44, 0x54, 0x64, 0x74, 0xA4

_CONDITIONAL = frozenset(code | source for code in (JEQ, JGT, JGE, JSET) for source in (0, FROM_X))
_ARITHMETIC = frozenset(
    code | source for code in (ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, XOR) for source in (0, FROM_X)
)
_OTHERS = frozenset(
    (LD_IMM, LD_ABS, LD_MEM, LD_LEN, LDX_IMM, LDX_MEM, LDX_LEN, ST, STX, JA, RET_K, RET_A, TAX, TXA, NEG)
)
ALLOWED_CODES = _CONDITIONAL | _ARITHMETIC | _OTHERS

Instruction = tuple[int, int, int, int]
"""code, jt, jf, k"""


class ProgramError(Exception):
    """The bytes are not a program the kernel would take; the text names the instruction."""


def encode_program(program: list[Instruction]) -> bytes:
    """`struct sock_filter` records: u16 code, u8 jt, u8 jf, u32 k, native byte order."""
    return b"".join(_RECORD.pack(*instruction) for instruction in program)


def decode_program(bpf: bytes) -> list[Instruction]:
    """Decode and validate; raises `ProgramError`."""
    if not bpf or len(bpf) % _RECORD.size:
        raise ProgramError(f"{len(bpf)} bytes are not a whole number of 8-byte instructions")
    program: list[Instruction] = list(_RECORD.iter_unpack(bpf))
    if len(program) > MAX_INSTRUCTIONS:
        raise ProgramError(f"{len(program)} instructions; the kernel takes at most {MAX_INSTRUCTIONS}")
    for place, instruction in enumerate(program):
        _validate(place, instruction, len(program))
    if program[-1][0] not in (RET_K, RET_A):
        raise ProgramError("the last instruction does not return")
    _validate_memory(program)
    return program


def _validate(place: int, instruction: Instruction, length: int) -> None:
    code, jump_true, jump_false, k = instruction
    if code not in ALLOWED_CODES:
        raise ProgramError(f"instruction {place}: code {code:#x} is not allowed in a seccomp filter")
    if code == LD_ABS and (k % 4 or k >= DATA_BYTES):
        raise ProgramError(f"instruction {place}: load at {k}, which is not a word of seccomp_data")
    if code in (LD_MEM, LDX_MEM, ST, STX) and k >= MEMORY_WORDS:
        raise ProgramError(f"instruction {place}: memory word {k} of {MEMORY_WORDS}")
    if code == DIV and k == 0:
        raise ProgramError(f"instruction {place}: division by zero")
    if code in (LSH, RSH) and k >= 32:
        raise ProgramError(f"instruction {place}: shift by {k}")
    furthest = k if code == JA else max(jump_true, jump_false) if code in _CONDITIONAL else 0
    if place + 1 + furthest >= length and code not in (RET_K, RET_A):
        raise ProgramError(f"instruction {place}: goes on past the end of the program")


def _validate_memory(program: list[Instruction]) -> None:
    """A word of memory must have been stored on every way that leads to its load (check_load_and_stores)."""
    everything = (1 << MEMORY_WORDS) - 1
    stored_at = [everything] * (len(program) + 1)
    stored_at[0] = 0
    reached = [False] * len(program)
    reached[0] = True
    for place, (code, jump_true, jump_false, k) in enumerate(program):
        stored = stored_at[place] if reached[place] else everything
        if code in (ST, STX):
            stored |= 1 << k
        elif code in (LD_MEM, LDX_MEM) and not stored >> k & 1:
            raise ProgramError(f"instruction {place}: memory word {k} may not have been stored")
        if code in (RET_K, RET_A):
            continue
        ahead = (k,) if code == JA else (jump_true, jump_false) if code in _CONDITIONAL else (0,)
        for distance in ahead:
            stored_at[place + 1 + distance] &= stored
            reached[place + 1 + distance] = True


def seccomp_data(audit_arch: int, number: int, arguments: tuple[int, ...]) -> list[int]:
    """The sixteen words of `struct seccomp_data`: nr, arch, instruction pointer (zero here), six arguments, low half first."""
    words = [number & _WORD, audit_arch, 0, 0]
    for argument in arguments:
        words.append(argument & _WORD)
        words.append(argument >> 32 & _WORD)
    return words


def run_program(program: list[Instruction], data: list[int]) -> int:
    """Run a program of `decode_program` over `seccomp_data`; returns the SECCOMP_RET_* value."""
    accumulator = index = place = 0
    memory: list[int] | None = None
    while True:
        code, jump_true, jump_false, k = program[place]
        place += 1
        if code == JEQ:
            place += jump_true if accumulator == k else jump_false
        elif code == JGE:
            place += jump_true if accumulator >= k else jump_false
        elif code == JGT:
            place += jump_true if accumulator > k else jump_false
        elif code == LD_ABS:
            accumulator = data[k >> 2]
        elif code == RET_K:
            return k
        elif code == AND:
            accumulator &= k
        elif code == JA:
            place += k
        elif code == RET_A:
            return accumulator
        elif code == DIV | FROM_X and index == 0:
            return 0
        elif code in _CONDITIONAL:
            taken = _compare(code & ~FROM_X, accumulator, index if code & FROM_X else k)
            place += jump_true if taken else jump_false
        elif code in _ARITHMETIC:
            accumulator = _calculate(code & ~FROM_X, accumulator, index if code & FROM_X else k)
        else:
            memory = [0] * MEMORY_WORDS if memory is None else memory
            accumulator, index = _move(code, accumulator, index, k, memory)


def _compare(code: int, left: int, right: int) -> bool:
    if code == JSET:
        return left & right != 0
    if code == JEQ:
        return left == right
    return left > right if code == JGT else left >= right


def _calculate(code: int, left: int, right: int) -> int:
    if code == ADD:
        result = left + right
    elif code == SUB:
        result = left - right
    elif code == MUL:
        result = left * right
    elif code == DIV:
        result = left // right
    elif code == OR:
        result = left | right
    elif code == AND:
        result = left & right
    elif code == XOR:
        result = left ^ right
    else:
        result = left << (right & 31) if code == LSH else left >> (right & 31)
    return result & _WORD


def _move(code: int, accumulator: int, index: int, k: int, memory: list[int]) -> tuple[int, int]:
    """Loads, stores, TAX, TXA and NEG: the accumulator and X after it."""
    if code == ST:
        memory[k] = accumulator
    elif code == STX:
        memory[k] = index
    elif code == NEG:
        accumulator = -accumulator & _WORD
    elif code == TXA:
        accumulator = index
    elif code == TAX:
        index = accumulator
    else:
        value = k if code in (LD_IMM, LDX_IMM) else memory[k] if code in (LD_MEM, LDX_MEM) else DATA_BYTES
        if code in (LD_IMM, LD_MEM, LD_LEN):
            accumulator = value
        else:
            index = value
    return accumulator, index
