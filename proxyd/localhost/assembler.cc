// SPDX-License-Identifier: Apache-2.0
#include "proxyd/localhost/assembler.h"

namespace hawser::proxy {

void Assembler::add(std::uint8_t code, Register dst, Register src, int offset, std::int32_t value) {
  bpf_insn i{};
  i.code = code;
  i.dst_reg = dst & 0xf;
  i.src_reg = src & 0xf;
  i.off = static_cast<std::int16_t>(offset);
  i.imm = value;
  code_.push_back(i);
}

void Assembler::branch(std::uint8_t code, Register dst, Register src, std::int32_t value, Label to) {
  jumps_.emplace_back(code_.size(), to);
  add(code, dst, src, 0, value);
}

Assembler::Label Assembler::label() {
  labels_.push_back(0);
  return labels_.size() - 1;
}

void Assembler::load(Size size, Register to, Register base, int offset) {
  add(BPF_LDX | size | BPF_MEM, to, base, offset);
}

void Assembler::store(Size size, Register base, int offset, Register from) {
  add(BPF_STX | size | BPF_MEM, base, from, offset);
}

void Assembler::store_value(Size size, Register base, int offset, std::int32_t value) {
  add(BPF_ST | size | BPF_MEM, base, 0, offset, value);
}

void Assembler::load_map(Register to, int fd) {
  add(BPF_LD | BPF_DW | BPF_IMM, to, BPF_PSEUDO_MAP_FD, 0, fd);
  add(0, 0);
}

std::vector<bpf_insn> Assembler::finish() && {
  // A jump counts from the instruction after it.
  for (const auto& [at, to] : jumps_) code_[at].off = static_cast<std::int16_t>(labels_[to] - at - 1);
  return std::move(code_);
}

}  // namespace hawser::proxy
