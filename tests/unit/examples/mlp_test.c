/* The perceptron of the example: its gradient against finite differences, what a frozen leaf changes, and that it
 * learns. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "client/examples/data.h"
#include "client/examples/mlp.h"

#include <cmocka.h>

enum { BATCH = 32 };

static const bool none_frozen[MLP_LEAVES];

static struct digits_data data;
static struct mlp_pass pass;
static float weights[MLP_ELEMENTS];
static float gradients[MLP_ELEMENTS];

/* About normal: the sum of twelve uniform numbers. */
static float random_normal(uint64_t *state) {
  double sum = -6;
  for (int i = 0; i < 12; i++)
    sum += (double)digits_random(state, 1u << 30) / (1u << 30);
  return (float)sum;
}

/* Weights of He's standard deviation, biases a little above zero. */
static void random_weights(uint64_t seed) {
  for (size_t l = 0; l < MLP_LEAVES; l++) {
    const struct mlp_leaf *leaf = &mlp_leaves[l];
    float scale = leaf->rank == 2 ? sqrtf(2.0f / (float)leaf->shape[1]) : 0.1f;
    for (size_t i = 0; i < leaf->len; i++)
      weights[leaf->offset + i] = scale * random_normal(&seed);
  }
}

static double loss_of(size_t batch) {
  mlp_forward(weights, data.pixels, data.labels, batch, &pass);
  return pass.loss;
}

static int setup(void **state) {
  (void)state;
  struct esp_status st;
  return digits_load(DIGITS_DATA, &data, &st) == ESP_OK ? 0 : -1;
}

/* The leaves lie one after the other, without a gap, and fill the array. */
static void test_leaves_fill_the_array(void **state) {
  (void)state;
  size_t offset = 0;
  for (size_t l = 0; l < MLP_LEAVES; l++) {
    const struct mlp_leaf *leaf = &mlp_leaves[l];
    assert_int_equal(leaf->offset, offset);
    assert_int_equal(leaf->len, leaf->shape[0] * (leaf->rank == 2 ? leaf->shape[1] : 1));
    offset += leaf->len;
  }
  assert_int_equal(offset, MLP_ELEMENTS);
}

/* Equal logits: the loss is log 10, and each class has a tenth. */
static void test_loss_of_zero_weights(void **state) {
  (void)state;
  memset(weights, 0, sizeof weights);
  assert_true(fabs(loss_of(BATCH) - log(10)) < 1e-6);
  for (size_t c = 0; c < MLP_CLASSES; c++)
    assert_true(fabs(pass.outputs[MLP_LAYERS - 1][0][c] - 0.1) < 1e-6);
}

/* The loss with one weight moved by `step`; *ret_on is which units ReLU let through. */
static double loss_beside(size_t element, float step, bool ret_on[MLP_LAYERS - 1][BATCH][MLP_WIDTH_MAX]) {
  const float kept = weights[element];
  weights[element] = kept + step;
  double loss = loss_of(BATCH);
  weights[element] = kept;
  for (size_t layer = 0; layer < MLP_LAYERS - 1; layer++)
    for (size_t row = 0; row < BATCH; row++)
      for (size_t unit = 0; unit < MLP_WIDTH_MAX; unit++)
        ret_on[layer][row][unit] = pass.outputs[layer][row][unit] > 0;
  return loss;
}

/* Central differences against the backward pass, leaf by leaf. Where a ReLU turns within the step there is no
 * derivative to compare with: those elements are left out, and must be the fewer. */
static void test_gradient_is_the_difference(void **state) {
  (void)state;
  static bool above_on[MLP_LAYERS - 1][BATCH][MLP_WIDTH_MAX], below_on[MLP_LAYERS - 1][BATCH][MLP_WIDTH_MAX];
  const float step = 1e-3f;
  random_weights(7);
  (void)loss_of(BATCH);
  mlp_backward(weights, data.labels, none_frozen, &pass, gradients);
  for (size_t l = 0; l < MLP_LEAVES; l++) {
    const struct mlp_leaf *leaf = &mlp_leaves[l];
    double error = 0, norm = 0;
    size_t compared = 0, left_out = 0;
    for (size_t i = leaf->offset; i < leaf->offset + leaf->len; i += 1 + leaf->len / 150) {
      double above = loss_beside(i, step, above_on), below = loss_beside(i, -step, below_on);
      double difference = (above - below) / (2 * (double)step);
      if (memcmp(above_on, below_on, sizeof above_on) != 0) {
        left_out++;
        continue;
      }
      compared++;
      error += (difference - gradients[i]) * (difference - gradients[i]);
      norm += difference * difference;
    }
    if (left_out > compared || !(sqrt(error) < 0.001 * sqrt(norm)))
      fail_msg("%s: error %g of norm %g, %zu compared, %zu left out", leaf->path, sqrt(error), sqrt(norm), compared,
               left_out);
  }
}

/* Every set of frozen leaves: their places are untouched, the others' gradients are the same bits as with nothing
 * frozen. So the gradient flows through what is frozen. */
static void test_frozen_leaves(void **state) {
  (void)state;
  static float whole[MLP_ELEMENTS];
  random_weights(8);
  (void)loss_of(BATCH);
  mlp_backward(weights, data.labels, none_frozen, &pass, whole);
  for (unsigned set = 0; set < 1u << MLP_LEAVES; set++) {
    bool frozen[MLP_LEAVES];
    for (size_t l = 0; l < MLP_LEAVES; l++)
      frozen[l] = set >> l & 1;
    for (size_t i = 0; i < MLP_ELEMENTS; i++)
      gradients[i] = 42;
    (void)loss_of(BATCH);
    mlp_backward(weights, data.labels, frozen, &pass, gradients);
    for (size_t l = 0; l < MLP_LEAVES; l++)
      for (size_t i = mlp_leaves[l].offset; i < mlp_leaves[l].offset + mlp_leaves[l].len; i++)
        assert_true(gradients[i] == (frozen[l] ? 42 : whole[i]));
  }
}

/* SGD with momentum, without a server: the network, the data and the split are good for the 0.95
 * that the quickstart asks for. */
static void test_learns(void **state) {
  (void)state;
  static float velocity[MLP_ELEMENTS];
  static float rows[BATCH][MLP_INPUTS];
  uint8_t labels[BATCH];
  uint64_t random = 9;
  random_weights(10);
  for (int step = 0; step < 1000; step++) {
    for (size_t row = 0; row < BATCH; row++) {
      size_t pick = digits_random(&random, DIGITS_TRAIN);
      memcpy(rows[row], data.pixels[pick], sizeof rows[row]);
      labels[row] = data.labels[pick];
    }
    mlp_forward(weights, rows, labels, BATCH, &pass);
    mlp_backward(weights, labels, none_frozen, &pass, gradients);
    for (size_t i = 0; i < MLP_ELEMENTS; i++) {
      velocity[i] = 0.9f * velocity[i] + gradients[i];
      weights[i] -= 0.02f * velocity[i];
    }
  }
  size_t correct = 0;
  for (size_t row = DIGITS_TRAIN; row < DIGITS_ROWS; row++) {
    mlp_forward(weights, data.pixels + row, data.labels + row, 1, &pass);
    correct += pass.correct;
  }
  double accuracy = (double)correct / (DIGITS_ROWS - DIGITS_TRAIN);
  print_message("accuracy %.3f\n", accuracy);
  assert_true(accuracy >= 0.95);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_leaves_fill_the_array),
      cmocka_unit_test(test_loss_of_zero_weights),
      cmocka_unit_test(test_gradient_is_the_difference),
      cmocka_unit_test(test_frozen_leaves),
      cmocka_unit_test(test_learns),
  };
  return cmocka_run_group_tests(tests, setup, NULL);
}
