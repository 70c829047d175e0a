// SPDX-License-Identifier: Apache-2.0
// Assembler: BPF instructions with labels. It knows the few forms that our programs need; a wrong use shows in the
// kernel's verifier. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <linux/bpf.h>

namespace hawser::proxy {

class Assembler {
 public:
  using Register = std::uint8_t;  // BPF_REG_0 ...
  using Size = std::uint8_t;      // BPF_B, BPF_H, BPF_W, BPF_DW
  using Label = std::size_t;

  // A place to jump to, bound later; each exactly once.
  Label label();
  void bind(Label l) { labels_[l] = code_.size(); }

  void move(Register to, Register from) { add(BPF_ALU64 | BPF_MOV | BPF_X, to, from); }
  void set(Register to, std::int32_t value) { add(BPF_ALU64 | BPF_MOV | BPF_K, to, 0, 0, value); }
  void add_to(Register to, std::int32_t value) { add(BPF_ALU64 | BPF_ADD | BPF_K, to, 0, 0, value); }
  void and32(Register to, std::uint32_t mask) {
    add(BPF_ALU | BPF_AND | BPF_K, to, 0, 0, static_cast<std::int32_t>(mask));
  }
  void load(Size size, Register to, Register base, int offset);
  void store(Size size, Register base, int offset, Register from);
  void store_value(Size size, Register base, int offset, std::int32_t value);
  void load_map(Register to, int fd);
  void call(bpf_func_id helper) { add(BPF_JMP | BPF_CALL, 0, 0, 0, helper); }
  void jump(Label to) { branch(BPF_JMP | BPF_JA, 0, 0, 0, to); }
  void if_zero(Register r, Label to) { branch(BPF_JMP | BPF_JEQ | BPF_K, r, 0, 0, to); }
  void if_not(Register r, Register other, Label to) { branch(BPF_JMP | BPF_JNE | BPF_X, r, other, 0, to); }
  void if_not32(Register r, std::uint32_t value, Label to) {
    branch(BPF_JMP32 | BPF_JNE | BPF_K, r, 0, static_cast<std::int32_t>(value), to);
  }
  void if_is32(Register r, std::uint32_t value, Label to) {
    branch(BPF_JMP32 | BPF_JEQ | BPF_K, r, 0, static_cast<std::int32_t>(value), to);
  }
  void exit() { add(BPF_JMP | BPF_EXIT, 0); }

  // The program, with its jumps resolved.
  [[nodiscard]] std::vector<bpf_insn> finish() &&;

 private:
  void add(std::uint8_t code, Register dst, Register src = 0, int offset = 0, std::int32_t value = 0);
  void branch(std::uint8_t code, Register dst, Register src, std::int32_t value, Label to);

  std::vector<bpf_insn> code_;
  std::vector<std::size_t> labels_;
  std::vector<std::pair<std::size_t, Label>> jumps_;  // instruction, where to
};

}  // namespace hawser::proxy
