/* Optimizers: expressions, rules and their block kernels. Pure functions on arrays; nothing here has threads or I/O.
 *
 * An expression is a rule or a chain of rules: `adamw(lr=3e-4, weight_decay=0.01)`, `sgd(lr=0.1) | sgd(lr=1)`. A rule
 * turns the update u of a block (at first the gradient) into another, with its state; a chain runs its rules left to
 * right on each block while it is in L1; then x <- x * scale - u, where scale is the product of the rules' own
 * (1, but for decoupled weight decay). So any chain costs one pass over memory. docs/optimizers.md has each rule's
 * formula, knobs, defaults and source. */
#ifndef ESP_OPTIM_H
#define ESP_OPTIM_H

#include <espalier/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"

#define ESP_OPTIM_TEXT_MAX 4096 /* bytes of an expression */
#define ESP_OPTIM_RULES_MAX 8   /* rules in a chain */
#define ESP_OPTIM_STATES_MAX 16 /* state tensors of a chain */
#define ESP_OPTIM_SCALARS_MAX 8 /* scalars of a rule that are computed once a step */

/* Instruction sets that kernels are built for. What the machine lacks is built, not run. */
enum esp_isa { ESP_ISA_SSE2, ESP_ISA_AVX2, ESP_ISA_AVX512, ESP_ISA_LEN };

const char *esp_isa_name(enum esp_isa isa);
bool esp_isa_supported(enum esp_isa isa); /* by this machine and its kernel */
/* "auto" (the best that is supported) or a name. INVALID_ARGUMENT for another word, FAILED_PRECONDITION where the
 * machine lacks it. */
enum esp_code esp_isa_parse(const char *text, enum esp_isa *ret, struct esp_status *st) ESP_WARN_UNUSED;

/* A parsed expression: immutable, counted, any thread. */
struct esp_optim;

/* INVALID_ARGUMENT with the column (from 1) for syntax, unknown rules (the known ones are listed), unknown or repeated
 * hyperparameters (the known ones are listed) and values out of range; UNIMPLEMENTED for a schedule as a value. */
enum esp_code esp_optim_parse(const char *text, struct esp_optim **ret, struct esp_status *st) ESP_WARN_UNUSED;
struct esp_optim *esp_optim_ref(struct esp_optim *optim);
void esp_optim_unref(struct esp_optim *optim); /* NULL is fine */

/* The canonical text, which parses to the same: every hyperparameter that differs from its default, in table order,
 * numbers in the shortest form that reads back to the same double. Borrowed from optim. */
const char *esp_optim_print(const struct esp_optim *optim);

/* One hyperparameter's new value: `lr`, or `rule.lr` or `1.lr` (the member's place from 0) where several members of the
 * chain have one of that name. */
struct esp_hyper_change {
  const char *name;
  const char *value; /* as in an expression */
};

/* The same chain with other values. INVALID_ARGUMENT naming the hyperparameter: unknown (the known ones are listed), in
 * several members (how to name each is listed), named twice, or a value that is none or out of range; UNIMPLEMENTED for
 * a schedule. Its states may be others: momentum=0.9 where it was 0 needs a tensor that is not there. */
enum esp_code esp_optim_adjust(const struct esp_optim *optim, const struct esp_hyper_change *changes, size_t len,
                               struct esp_optim **ret, struct esp_status *st) ESP_WARN_UNUSED;

/* State tensors, each of the parameter's shape and dtype, zero at first. Table order. */
size_t esp_optim_states_len(const struct esp_optim *optim);
/* "exp_avg"; where two members of a chain have the same, "1.momentum" with the member's place from 0. Borrowed. */
const char *esp_optim_state_name(const struct esp_optim *optim, size_t index);
/* The index of the state of that name, or SIZE_MAX. */
size_t esp_optim_state_find(const struct esp_optim *optim, const char *name);

/* A gradient that is to be summed: a whole tensor, row-major. Transposed: of [cols, rows], for a parameter of [rows,
 * cols]. */
struct esp_grad {
  const void *data; /* of any alignment */
  bool transposed;
  uint64_t rows; /* of the parameter; both only where it is transposed */
  uint64_t cols;
  enum esp_dtype dtype; /* bf16 or f16 for a parameter of f32: it counts as what it widens to. NONE: the parameter's */
};

/* Norms that a chain wants to know before it can step (clip_norm and its kin): a set of bits. */
enum esp_norms_wanted { ESP_NORM_PARAM = 1, ESP_NORM_GROUP = 2, ESP_NORM_GLOBAL = 4 };
unsigned esp_optim_norms(const struct esp_optim *optim);

/* Sums of the squares of what a commit applies: of the parameter's summed gradient, of those of all parameters of the
 * group, of all in the commit. Only those that are wanted are looked at. */
struct esp_norms {
  double param;
  double group;
  double global;
};

#define ESP_SQUARES_ELEMENTS 65536 /* of one range whose squares are summed */
/* The sum of the squares of elements first .. first+n of the summed gradient: in double, over fixed blocks in a fixed
 * order, the same bits on every instruction set. first is a multiple of ESP_SQUARES_ELEMENTS, n at most that, and less
 * only at the tensor's end. Ranges are to be added up in their order. */
double esp_optim_squares(enum esp_isa isa, enum esp_dtype dtype, uint64_t first, size_t n, const struct esp_grad *grads,
                         size_t grads_len, double grad_scale);

/* The scalars of one step of one parameter: bias corrections and the like, in double, computed once. */
struct esp_step {
  double scalars[ESP_OPTIM_RULES_MAX][ESP_OPTIM_SCALARS_MAX]; /* by rule; what they are is the rule's */
  double scale;                                               /* x is multiplied by this before u is subtracted */
};

/* step is the parameter's step count after this step: 1 for its first. norms may be NULL where none is wanted. */
void esp_optim_step_init(const struct esp_optim *optim, uint64_t step, const struct esp_norms *norms,
                         struct esp_step *ret);

/* One step on elements first .. first+n of a parameter (any range of it: the bits do not depend on the cut). All
 * tensors are whole. x and x_out: the value before and after, which may be the same memory or disjoint. states: updated
 * in place. grads: grads_len >= 1, summed in order; then, where grad_scale is not 1, multiplied by it. All of dtype f32
 * or f64 (but for narrower gradients), of any alignment, not overlapping but for x and x_out. The machine must have
 * isa. */
void esp_optim_apply(const struct esp_optim *optim, const struct esp_step *step, enum esp_isa isa, enum esp_dtype dtype,
                     uint64_t first, size_t n, const struct esp_grad *grads, size_t grads_len, double grad_scale,
                     const void *x, void *x_out, void *const *states);

/* The index of the first NaN or infinity in n elements, or n. data may be unaligned. */
size_t esp_finite_check(enum esp_isa isa, enum esp_dtype dtype, size_t n, const void *data);

/* n elements of bf16 or f16 as floats: exactly, subnormal ones too; a NaN stays one. Nothing need be aligned. */
void esp_widen(enum esp_isa isa, enum esp_dtype dtype, size_t n, const void *from, void *out);
/* A tensor of floats, of [rows, cols], as bf16 or f16, row-major: rounded to nearest, ties to even; a NaN stays one.
 * transposed: from is of [cols, rows]. False where a finite element is beyond the range of dtype: *ret_index is that of
 * one, in out. Nothing need be aligned. */
bool esp_narrow(enum esp_isa isa, enum esp_dtype dtype, uint64_t rows, uint64_t cols, const void *from, bool transposed,
                void *out, uint64_t *ret_index) ESP_WARN_UNUSED;

/* First values of a new parameter. */
enum esp_init_kind { ESP_INIT_ZEROS, ESP_INIT_CONSTANT, ESP_INIT_UNIFORM, ESP_INIT_NORMAL, ESP_INIT_VALUE };

struct esp_init {
  enum esp_init_kind kind;
  double a;      /* the constant; low; mean */
  double b;      /* high; stddev */
  uint64_t seed; /* of uniform and normal */
};

/* INVALID_ARGUMENT for numbers that are not finite (high - low among them), high < low, stddev < 0. */
enum esp_code esp_init_check(const struct esp_init *init, struct esp_status *st) ESP_WARN_UNUSED;
/* Elements first .. first+n of the tensor into out. Each element depends on seed and its index alone (counter-based),
 * so ranges may be filled by several threads. What would exceed the range of dtype (f32 or f64) becomes its largest
 * value; out is aligned to an element. Not for ESP_INIT_VALUE. */
void esp_init_fill(const struct esp_init *init, enum esp_dtype dtype, uint64_t first, size_t n, void *out);

#endif
