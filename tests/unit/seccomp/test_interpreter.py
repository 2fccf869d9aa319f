"""The second reader of BPF: every instruction, and every refusal of the kernel's verifier."""

from __future__ import annotations

import struct

import pytest

from coworkd.seccomp.interpreter import (
    ADD,
    AND,
    DIV,
    FROM_X,
    JA,
    JEQ,
    JGE,
    JGT,
    JSET,
    LD_ABS,
    LD_IMM,
    LD_LEN,
    LD_MEM,
    LDX_IMM,
    LDX_LEN,
    LDX_MEM,
    LSH,
    MUL,
    NEG,
    OR,
    RET_A,
    RET_K,
    RSH,
    ST,
    STX,
    SUB,
    TAX,
    TXA,
    XOR,
    Instruction,
    ProgramError,
    decode_program,
    encode_program,
    run_program,
    seccomp_data,
)  # fmt: skip

RET: Instruction = (RET_K, 0, 0, 7)
DATA = seccomp_data(0xC000_003E, 41, (0x1_0000_0028, 2, 3, 4, 5, 0xFFFF_FFFF_0000_0001))


def ran(*program: Instruction) -> int:
    return run_program(decode_program(encode_program(list(program))), DATA)


def test_program_records_are_the_kernels() -> None:
    assert encode_program([(JEQ, 1, 2, 0xC000_003E)]) == struct.pack("=HBBI", 0x15, 1, 2, 0xC000_003E)


@pytest.mark.parametrize(
    ("offset", "word"), [(0, 41), (4, 0xC000_003E), (8, 0), (16, 0x28), (20, 1), (24, 2), (56, 1), (60, 0xFFFF_FFFF)]
)
def test_load_reads_seccomp_data(offset: int, word: int) -> None:
    assert ran((LD_ABS, 0, 0, offset), (RET_A, 0, 0, 0)) == word


@pytest.mark.parametrize(
    ("code", "left", "right", "result"),
    [
        (ADD, 0xFFFF_FFFF, 2, 1),
        (SUB, 1, 2, 0xFFFF_FFFF),
        (MUL, 0x1_0001, 0x1_0001, 0x2_0001),
        (DIV, 7, 2, 3),
        (OR, 5, 2, 7),
        (AND, 7, 5, 5),
        (XOR, 7, 5, 2),
        (LSH, 0x8000_0001, 1, 2),
        (RSH, 0x8000_0000, 31, 1),
    ],
)
def test_arithmetic_is_32_bits_from_constant_and_x(code: int, left: int, right: int, result: int) -> None:
    assert ran((LD_IMM, 0, 0, left), (code, 0, 0, right), (RET_A, 0, 0, 0)) == result
    assert ran((LD_IMM, 0, 0, left), (LDX_IMM, 0, 0, right), (code | FROM_X, 0, 0, 0), (RET_A, 0, 0, 0)) == result


def test_negation_wraps() -> None:
    assert ran((LD_IMM, 0, 0, 1), (NEG, 0, 0, 0), (RET_A, 0, 0, 0)) == 0xFFFF_FFFF


def test_division_by_zero_x_ends_with_zero() -> None:
    assert ran((LD_IMM, 0, 0, 5), (LDX_IMM, 0, 0, 0), (DIV | FROM_X, 0, 0, 0), RET) == 0


@pytest.mark.parametrize(
    ("code", "left", "right", "taken"),
    [(JEQ, 3, 3, True), (JEQ, 3, 4, False), (JGT, 3, 3, False), (JGT, 0xFFFF_FFFF, 3, True), (JGE, 3, 3, True),
     (JGE, 2, 3, False), (JSET, 6, 2, True), (JSET, 4, 3, False)],
)  # fmt: skip
def test_jumps_compare_unsigned_with_constant_and_x(code: int, left: int, right: int, taken: bool) -> None:
    ends: tuple[Instruction, ...] = ((RET_K, 0, 0, 1), (RET_K, 0, 0, 0))
    assert ran((LD_IMM, 0, 0, left), (code, 0, 1, right), *ends) == taken
    assert ran((LD_IMM, 0, 0, left), (LDX_IMM, 0, 0, right), (code | FROM_X, 0, 1, 0), *ends) == taken


def test_always_jump_skips() -> None:
    assert ran((JA, 0, 0, 1), (RET_K, 0, 0, 1), RET) == 7


def test_memory_and_registers_move() -> None:
    program: list[Instruction] = [
        (LD_LEN, 0, 0, 0), (ST, 0, 0, 3), (LDX_MEM, 0, 0, 3), (LD_IMM, 0, 0, 1), (TXA, 0, 0, 0), (ADD, 0, 0, 1), (TAX, 0, 0, 0),
        (STX, 0, 0, 15), (LDX_LEN, 0, 0, 0), (LD_MEM, 0, 0, 15), (ADD | FROM_X, 0, 0, 0), (RET_A, 0, 0, 0),
    ]  # fmt: skip
    assert ran(*program) == 64 + 1 + 64


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ([], "whole number"),
        ([RET] * 4097, "at most 4096"),
        ([(LD_IMM, 0, 0, 1)], "past the end"),
        ([(JA, 0, 0, 1), RET], "past the end"),
        ([(JA, 0, 0, 0xFFFF_FFFF), RET], "past the end"),
        ([(JEQ, 1, 0, 0), RET], "past the end"),
        ([(JEQ, 0, 255, 0), RET], "past the end"),
        ([RET, (LD_IMM, 0, 0, 1), (JA, 0, 0, 0)], "past the end"),
        ([(LD_ABS, 0, 0, 2), RET], "not a word"),
        ([(LD_ABS, 0, 0, 64), RET], "not a word"),
        ([(0x28, 0, 0, 0), RET], "not allowed"),
        ([(0x30, 0, 0, 0), RET], "not allowed"),
        ([(0x40, 0, 0, 0), RET], "not allowed"),
        ([(0x94, 0, 0, 3), RET], "not allowed"),
        ([(0xFFFF, 0, 0, 0), RET], "not allowed"),
        ([(DIV, 0, 0, 0), RET], "division by zero"),
        ([(LSH, 0, 0, 32), RET], "shift"),
        ([(ST, 0, 0, 16), RET], "memory word 16"),
        ([(LD_MEM, 0, 0, 0), RET], "may not have been stored"),
        ([(JEQ, 1, 0, 0), (ST, 0, 0, 0), (LDX_MEM, 0, 0, 0), RET], "may not have been stored"),
    ],
)
def test_decode_refuses_what_the_kernel_refuses(program: list[Instruction], why: str) -> None:
    with pytest.raises(ProgramError, match=why):
        decode_program(encode_program(program))


def test_decode_refuses_a_part_of_an_instruction() -> None:
    with pytest.raises(ProgramError, match="whole number"):
        decode_program(encode_program([RET]) + b"\0")


def test_decode_takes_the_longest_program() -> None:
    assert len(decode_program(encode_program([RET] * 4096))) == 4096
