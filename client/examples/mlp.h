/* A small multilayer perceptron, 64 -> 64 -> 32 -> 10, ReLU between the layers, softmax cross-entropy at the end, in
 * float32: its forward and backward passes by hand. It knows nothing of Espalier: weights and gradients are plain
 * arrays, laid out by mlp_leaves. */
#ifndef ESP_EXAMPLES_MLP_H
#define ESP_EXAMPLES_MLP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  MLP_LAYERS = 3,
  MLP_LEAVES = 2 * MLP_LAYERS, /* a weight and a bias each: leaf 2*l and 2*l + 1 are those of layer l */
  MLP_INPUTS = 64,
  MLP_ENCODER = 64,
  MLP_HIDDEN = 32,
  MLP_CLASSES = 10,
  MLP_WIDTH_MAX = 64,
  MLP_BATCH_MAX = 256,
  MLP_ELEMENTS = MLP_ENCODER * (MLP_INPUTS + 1) + MLP_HIDDEN * (MLP_ENCODER + 1) + MLP_CLASSES * (MLP_HIDDEN + 1),
};

/* A tensor of the network. Weights are [outputs, inputs], row-major, as PyTorch's. */
struct mlp_leaf {
  const char *path;  /* encoder.weight ... head.bias */
  unsigned rank;     /* 2: a weight, 1: a bias */
  uint64_t shape[2]; /* the first `rank` count */
  size_t offset;     /* its first element in the array of MLP_ELEMENTS */
  size_t len;        /* elements */
};

extern const struct mlp_leaf mlp_leaves[MLP_LEAVES];

/* What a forward pass leaves behind for the backward pass. About 400 KB: keep it off the stack. */
struct mlp_pass {
  size_t batch;                                            /* rows */
  const float (*inputs)[MLP_INPUTS];                       /* borrowed from the caller */
  float outputs[MLP_LAYERS][MLP_BATCH_MAX][MLP_WIDTH_MAX]; /* each layer's, after ReLU; the last: probabilities */
  float deltas[MLP_LAYERS][MLP_BATCH_MAX][MLP_WIDTH_MAX];  /* the loss by each layer's output before ReLU */
  double loss;                                             /* cross-entropy, mean over the batch */
  size_t correct;                                          /* rows whose most probable class is the label */
};

/* Runs a batch of 1 to MLP_BATCH_MAX rows through the network of `weights` (MLP_ELEMENTS floats). `inputs` must
 * live until the backward pass. */
void mlp_forward(const float *weights, const float (*inputs)[MLP_INPUTS], const uint8_t *labels, size_t batch,
                 struct mlp_pass *ret);

/* The gradient of the mean loss, written to `gradients` (MLP_ELEMENTS floats) for the leaves that are not frozen; a
 * frozen leaf's place is not touched. The gradient flows through a frozen layer to those before it, as far down as any
 * leaf wants it. */
void mlp_backward(const float *weights, const uint8_t *labels, const bool frozen[MLP_LEAVES], struct mlp_pass *pass,
                  float *gradients);

#endif
