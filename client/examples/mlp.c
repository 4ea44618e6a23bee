/* The perceptron's arithmetic: plain loops over rows and units, in the order that lets the compiler vectorise the inner
 * ones. A forward pass keeps each layer's output; the backward pass walks the layers from the last to the first, and
 * at each takes the gradient of its leaves, then hands the gradient of its input down.
 *
 * Cannot fail: sizes are fixed and the caller keeps to MLP_BATCH_MAX. */
#include "client/examples/mlp.h"

#include <math.h>
#include <string.h>

static const size_t widths[MLP_LAYERS + 1] = {MLP_INPUTS, MLP_ENCODER, MLP_HIDDEN, MLP_CLASSES};

#define ENCODER_BIAS (MLP_ENCODER * MLP_INPUTS)
#define HIDDEN_WEIGHT (ENCODER_BIAS + MLP_ENCODER)
#define HIDDEN_BIAS (HIDDEN_WEIGHT + MLP_HIDDEN * MLP_ENCODER)
#define HEAD_WEIGHT (HIDDEN_BIAS + MLP_HIDDEN)
#define HEAD_BIAS (HEAD_WEIGHT + MLP_CLASSES * MLP_HIDDEN)

const struct mlp_leaf mlp_leaves[MLP_LEAVES] = {
    {"encoder.weight", 2, {MLP_ENCODER, MLP_INPUTS}, 0, MLP_ENCODER *MLP_INPUTS},
    {"encoder.bias", 1, {MLP_ENCODER}, ENCODER_BIAS, MLP_ENCODER},
    {"hidden.weight", 2, {MLP_HIDDEN, MLP_ENCODER}, HIDDEN_WEIGHT, MLP_HIDDEN *MLP_ENCODER},
    {"hidden.bias", 1, {MLP_HIDDEN}, HIDDEN_BIAS, MLP_HIDDEN},
    {"head.weight", 2, {MLP_CLASSES, MLP_HIDDEN}, HEAD_WEIGHT, MLP_CLASSES *MLP_HIDDEN},
    {"head.bias", 1, {MLP_CLASSES}, HEAD_BIAS, MLP_CLASSES},
};

static const float *layer_input(const struct mlp_pass *pass, size_t layer, size_t row) {
  return layer == 0 ? pass->inputs[row] : pass->outputs[layer - 1][row];
}

/* One layer for one row: output = weight * input + bias, through ReLU except in the last layer. */
static void layer_forward(const float *weights, size_t layer, const float *input, float *output) {
  const float *weight = weights + mlp_leaves[2 * layer].offset;
  const float *bias = weights + mlp_leaves[2 * layer + 1].offset;
  for (size_t o = 0; o < widths[layer + 1]; o++) {
    float sum = bias[o];
    for (size_t i = 0; i < widths[layer]; i++)
      sum += weight[o * widths[layer] + i] * input[i];
    output[o] = layer + 1 < MLP_LAYERS && sum < 0 ? 0 : sum;
  }
}

/* Turns a row's logits into probabilities, in place; returns its loss. The largest logit is taken off first, so that
 * nothing overflows. *ret_class is the most probable class. */
static double softmax(float logits[MLP_CLASSES], uint8_t label, size_t *ret_class) {
  size_t best = 0;
  for (size_t c = 1; c < MLP_CLASSES; c++)
    if (logits[c] > logits[best])
      best = c;
  float largest = logits[best];
  double sum = 0;
  for (size_t c = 0; c < MLP_CLASSES; c++)
    sum += exp((double)logits[c] - largest);
  double loss = log(sum) - ((double)logits[label] - largest);
  for (size_t c = 0; c < MLP_CLASSES; c++)
    logits[c] = (float)(exp((double)logits[c] - largest) / sum);
  *ret_class = best;
  return loss;
}

void mlp_forward(const float *weights, const float (*inputs)[MLP_INPUTS], const uint8_t *labels, size_t batch,
                 struct mlp_pass *ret) {
  double loss = 0;
  ret->batch = batch;
  ret->inputs = inputs;
  ret->correct = 0;
  for (size_t row = 0; row < batch; row++) {
    for (size_t layer = 0; layer < MLP_LAYERS; layer++)
      layer_forward(weights, layer, layer_input(ret, layer, row), ret->outputs[layer][row]);
    size_t class = 0;
    loss += softmax(ret->outputs[MLP_LAYERS - 1][row], labels[row], &class);
    ret->correct += class == labels[row];
  }
  ret->loss = loss / (double)batch;
}

/* The loss by the logits: probability, less one for the label's class; over the batch, because the loss is a mean. */
static void head_deltas(const uint8_t *labels, struct mlp_pass *pass) {
  const size_t last = MLP_LAYERS - 1;
  for (size_t row = 0; row < pass->batch; row++)
    for (size_t c = 0; c < MLP_CLASSES; c++)
      pass->deltas[last][row][c] = (pass->outputs[last][row][c] - (c == labels[row])) / (float)pass->batch;
}

static void weight_gradient(const struct mlp_pass *pass, size_t layer, float *gradient) {
  memset(gradient, 0, mlp_leaves[2 * layer].len * sizeof *gradient);
  for (size_t row = 0; row < pass->batch; row++) {
    const float *input = layer_input(pass, layer, row);
    for (size_t o = 0; o < widths[layer + 1]; o++)
      for (size_t i = 0; i < widths[layer]; i++)
        gradient[o * widths[layer] + i] += pass->deltas[layer][row][o] * input[i];
  }
}

static void bias_gradient(const struct mlp_pass *pass, size_t layer, float *gradient) {
  memset(gradient, 0, mlp_leaves[2 * layer + 1].len * sizeof *gradient);
  for (size_t row = 0; row < pass->batch; row++)
    for (size_t o = 0; o < widths[layer + 1]; o++)
      gradient[o] += pass->deltas[layer][row][o];
}

/* Hands the gradient down: from this layer's deltas, through its weight and the ReLU before it. */
static void deltas_below(const float *weights, size_t layer, struct mlp_pass *pass) {
  const float *weight = weights + mlp_leaves[2 * layer].offset;
  for (size_t row = 0; row < pass->batch; row++) {
    float *below = pass->deltas[layer - 1][row];
    memset(below, 0, widths[layer] * sizeof *below);
    for (size_t o = 0; o < widths[layer + 1]; o++)
      for (size_t i = 0; i < widths[layer]; i++)
        below[i] += pass->deltas[layer][row][o] * weight[o * widths[layer] + i];
    for (size_t i = 0; i < widths[layer]; i++)
      if (pass->outputs[layer - 1][row][i] <= 0)
        below[i] = 0;
  }
}

void mlp_backward(const float *weights, const uint8_t *labels, const bool frozen[MLP_LEAVES], struct mlp_pass *pass,
                  float *gradients) {
  size_t lowest = 0; /* the first leaf that wants a gradient: nothing has to flow below its layer */
  while (lowest < MLP_LEAVES && frozen[lowest])
    lowest++;
  if (lowest == MLP_LEAVES)
    return;
  head_deltas(labels, pass);
  for (size_t layer = MLP_LAYERS; layer-- > lowest / 2;) {
    if (!frozen[2 * layer])
      weight_gradient(pass, layer, gradients + mlp_leaves[2 * layer].offset);
    if (!frozen[2 * layer + 1])
      bias_gradient(pass, layer, gradients + mlp_leaves[2 * layer + 1].offset);
    if (layer > lowest / 2)
      deltas_below(weights, layer, pass);
  }
}
