/* espalier-digits: trains a small network on handwritten digits through an Espalier server.
 *
 * --role train is a worker. It declares the network's leaves (the first worker's declaration makes them, the others
 * join), then draws batches, computes gradients and pushes them, and gets the new weights in the same round trip. What
 * an operator freezes meanwhile it stops computing, and takes up again after the thaw. SIGTERM or SIGINT ends it after
 * the step under way, in order; a second one at once.
 *
 * --role evaluate pulls the weights, once, and prints the accuracy on the rows that no worker trains on.
 *
 * Any error ends the program with one line on stderr and exit code 1 (2 for a bad command line). Retries are the
 * library's. */
#include <espalier/admin.h>

#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/examples/data.h"
#include "client/examples/mlp.h"

enum { EXIT_USAGE = 2 };

/* The command line. */
struct options {
  const char *role;   /* train or evaluate */
  const char *server; /* NULL: the library's default */
  const char *data;   /* the table */
  const char *worker; /* NULL: the library's default */
  uint64_t steps;     /* batches to train on; 0: until a signal */
  uint64_t batch;     /* rows in each, MLP_BATCH_MAX at most */
  uint64_t seed;      /* of the batches, one of its own for each worker */
  uint64_t report;    /* steps between two lines of progress */
};

/* What either role holds: the network as arrays, and where each leaf of it is on the server. */
struct network {
  esp_leaf_id leaves[MLP_LEAVES];         /* in the order of mlp_leaves */
  float weights[MLP_ELEMENTS];            /* as last pulled */
  float gradients[MLP_ELEMENTS];          /* of the last batch */
  struct esp_weight pulls[MLP_LEAVES];    /* every leaf, pointing into weights */
  struct esp_gradient pushes[MLP_LEAVES]; /* the leaves that are not frozen, pointing into gradients */
};

/* The progress since the last line was printed. */
struct progress {
  double start;   /* seconds, when training began */
  double since;   /* seconds, of the last line */
  uint64_t steps; /* since then */
  uint64_t rows;
  uint64_t correct;
  double loss; /* the sum of the batches' */
};

/* Large, and there is one of each: not on the stack. */
static struct digits_data data;
static struct mlp_pass pass;
static struct network network;

/* Set by SIGTERM and SIGINT: training ends after the step under way. */
static volatile sig_atomic_t stopping;

static void on_signal(int number) {
  (void)number;
  stopping = 1;
}

/* Once: a second signal ends the process as if it were not handled. */
static void handle_signals(void) {
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
}

static double now_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void point_at_weights(void) {
  for (size_t l = 0; l < MLP_LEAVES; l++)
    network.pulls[l] = (struct esp_weight){.leaf = network.leaves[l],
                                           .data = network.weights + mlp_leaves[l].offset,
                                           .bytes = mlp_leaves[l].len * sizeof(float)};
}

/* Weights start as He et al. (2015) have it for ReLU, drawn by the server from a fixed seed; biases at zero. The
 * optimizer of each leaf is the server's business: its flags assign groups. */
static enum esp_code declare(esp_client *client, struct esp_status *st) {
  struct esp_leaf_spec specs[MLP_LEAVES] = {0};
  for (size_t l = 0; l < MLP_LEAVES; l++) {
    const struct mlp_leaf *leaf = &mlp_leaves[l];
    specs[l].path = leaf->path;
    specs[l].rank = leaf->rank;
    memcpy(specs[l].shape, leaf->shape, sizeof leaf->shape);
    specs[l].dtype = ESP_F32;
    if (leaf->rank != 2)
      continue;
    specs[l].init = ESP_NORMAL;
    specs[l].b = sqrt(2.0 / (double)leaf->shape[1]);
    specs[l].seed = l + 1;
  }
  return esp_declare(client, specs, MLP_LEAVES, network.leaves, st);
}

static void draw_batch(size_t batch, uint64_t *random, float (*ret_inputs)[MLP_INPUTS], uint8_t *ret_labels) {
  for (size_t row = 0; row < batch; row++) {
    size_t pick = digits_random(random, DIGITS_TRAIN);
    memcpy(ret_inputs[row], data.pixels[pick], sizeof data.pixels[pick]);
    ret_labels[row] = data.labels[pick];
  }
}

/* The gradients of one batch, of the leaves that are not frozen; returns how many those are. */
static size_t compute_gradients(esp_client *client, const struct options *options, uint64_t *random) {
  static float inputs[MLP_BATCH_MAX][MLP_INPUTS];
  static uint8_t labels[MLP_BATCH_MAX];
  bool frozen[MLP_LEAVES];
  size_t len = 0;
  for (size_t l = 0; l < MLP_LEAVES; l++) {
    frozen[l] = esp_leaf_is_frozen(client, network.leaves[l]);
    if (frozen[l])
      continue;
    network.pushes[len++] = (struct esp_gradient){.leaf = network.leaves[l],
                                                  .data = network.gradients + mlp_leaves[l].offset,
                                                  .bytes = mlp_leaves[l].len * sizeof(float)};
  }
  draw_batch(options->batch, random, inputs, labels);
  mlp_forward(network.weights, inputs, labels, options->batch, &pass);
  mlp_backward(network.weights, labels, frozen, &pass, network.gradients);
  return len;
}

/* One line, as: "worker-1  step 500  loss 0.123  accuracy 0.969  1234 steps/s  frozen 2 of 6 leaves". */
static void print_progress(const char *worker, uint64_t step, size_t frozen, struct progress *progress) {
  double now = now_seconds();
  printf("%s  step %5" PRIu64 "  loss %.3f  accuracy %.3f  %.0f steps/s", worker, step,
         progress->loss / (double)progress->steps, (double)progress->correct / (double)progress->rows,
         (double)progress->steps / (now - progress->since));
  if (frozen > 0)
    printf("  frozen %zu of %d leaves", frozen, MLP_LEAVES);
  printf("\n");
  *progress = (struct progress){.start = progress->start, .since = now};
}

static enum esp_code train(esp_client *client, const struct options *options, struct esp_status *st) {
  handle_signals();
  enum esp_code code = declare(client, st);
  if (code != ESP_OK)
    return code;
  point_at_weights();
  code = esp_pull(client, network.pulls, MLP_LEAVES, NULL, st);
  const char *worker = options->worker != NULL ? options->worker : "worker";
  uint64_t random = options->seed;
  struct progress progress = {.start = now_seconds()};
  progress.since = progress.start;
  uint64_t step = 0;
  while (code == ESP_OK && !stopping && (options->steps == 0 || step < options->steps)) {
    size_t len = compute_gradients(client, options, &random);
    code = esp_push_pull(client, network.pushes, len, network.pulls, MLP_LEAVES, NULL, NULL, st);
    step++;
    progress.steps++;
    progress.rows += options->batch;
    progress.correct += pass.correct;
    progress.loss += pass.loss;
    if (code == ESP_OK && step % options->report == 0)
      print_progress(worker, step, MLP_LEAVES - len, &progress);
  }
  double seconds = now_seconds() - progress.start;
  if (code == ESP_OK)
    printf("%s  done: %" PRIu64 " steps in %.1f s, %.0f steps/s\n", worker, step, seconds, (double)step / seconds);
  return code;
}

/* Takes the ids of the network's leaves from the server's description, so that evaluating declares nothing. */
static enum esp_code find_leaves(const struct esp_description *description, struct esp_status *st) {
  for (size_t l = 0; l < MLP_LEAVES; l++) {
    for (size_t i = 0; i < description->leaves_len; i++)
      if (strcmp(description->leaves[i].path, mlp_leaves[l].path) == 0)
        network.leaves[l] = description->leaves[i].leaf;
    if (network.leaves[l] == 0)
      return esp_fail(st, ESP_NOT_FOUND, "the server has no leaf %s: train first (--role train)", mlp_leaves[l].path);
  }
  return ESP_OK;
}

static enum esp_code evaluate(esp_client *client, struct esp_status *st) {
  struct esp_description *description = NULL;
  enum esp_code code = esp_describe(client, NULL, false, &description, st);
  if (code == ESP_OK)
    code = find_leaves(description, st);
  esp_description_free(description);
  if (code != ESP_OK)
    return code;
  point_at_weights();
  code = esp_pull(client, network.pulls, MLP_LEAVES, NULL, st);
  if (code != ESP_OK)
    return code;
  size_t correct = 0;
  for (size_t row = DIGITS_TRAIN, batch = 0; row < DIGITS_ROWS; row += batch) {
    batch = DIGITS_ROWS - row < MLP_BATCH_MAX ? DIGITS_ROWS - row : MLP_BATCH_MAX;
    mlp_forward(network.weights, data.pixels + row, data.labels + row, batch, &pass);
    correct += pass.correct;
  }
  printf("accuracy %.3f\n", (double)correct / (DIGITS_ROWS - DIGITS_TRAIN));
  return ESP_OK;
}

static void print_help(FILE *stream) {
  fprintf(stream,
          "espalier-digits --role train|evaluate [OPTIONS]: handwritten digits through an Espalier server\n"
          "  --server ADDRESS  127.0.0.1:7433 or unix:PATH; default $ESPALIER_SERVER, else 127.0.0.1:7433\n"
          "  --data FILE       the table; default %s\n"
          "  --worker NAME     the worker's name\n"
          "  --steps N         batches to train on; 0: until SIGTERM or SIGINT, which end training at any time; "
          "default 2000\n"
          "  --batch N         rows in each, 1 to %d; default 32\n"
          "  --seed N          of the batches; default 1\n"
          "  --report N        steps between two lines of progress; default 500\n"
          "  --help, --version\n",
          ESPALIER_DIGITS_DATA, MLP_BATCH_MAX);
}

/* Ends the program for anything but an integer from min to max. */
static uint64_t parse_number(const char *name, const char *text, uint64_t min, uint64_t max) {
  char *end = NULL;
  unsigned long long value = strtoull(text, &end, 10);
  if (*text < '0' || *text > '9' || *end != '\0' || strlen(text) > 18 || value < min || value > max) {
    fprintf(stderr, "espalier-digits: --%s is to be from %" PRIu64 " to %" PRIu64 ", not \"%s\"\n", name, min, max,
            text);
    exit(EXIT_USAGE);
  }
  return value;
}

static void parse_options(int argc, char **argv, struct options *ret) {
  static const struct option table[] = {
      {"role", required_argument, NULL, 'r'},
      {"server", required_argument, NULL, 'S'},
      {"data", required_argument, NULL, 'd'},
      {"worker", required_argument, NULL, 'w'},
      {"steps", required_argument, NULL, 'n'},
      {"batch", required_argument, NULL, 'b'},
      {"seed", required_argument, NULL, 's'},
      {"report", required_argument, NULL, 'p'},
      {"help", no_argument, NULL, 'h'},
      {"version", no_argument, NULL, 'v'},
      {NULL, 0, NULL, 0},
  };
  int option = 0;
  while ((option = getopt_long(argc, argv, "", table, NULL)) != -1) {
    switch (option) {
    case 'r':
      ret->role = optarg;
      break;
    case 'S':
      ret->server = optarg;
      break;
    case 'd':
      ret->data = optarg;
      break;
    case 'w':
      ret->worker = optarg;
      break;
    case 'n':
      ret->steps = parse_number("steps", optarg, 0, UINT32_MAX);
      break;
    case 'b':
      ret->batch = parse_number("batch", optarg, 1, MLP_BATCH_MAX);
      break;
    case 's':
      ret->seed = parse_number("seed", optarg, 0, UINT32_MAX);
      break;
    case 'p':
      ret->report = parse_number("report", optarg, 1, UINT32_MAX);
      break;
    case 'h':
      print_help(stdout);
      exit(EXIT_SUCCESS);
    case 'v':
      printf("espalier-digits %s\n", esp_version());
      exit(EXIT_SUCCESS);
    default:
      print_help(stderr);
      exit(EXIT_USAGE);
    }
  }
  if (optind < argc || ret->role == NULL || (strcmp(ret->role, "train") != 0 && strcmp(ret->role, "evaluate") != 0)) {
    print_help(stderr);
    exit(EXIT_USAGE);
  }
}

int main(int argc, char **argv) {
  struct options options = {.data = ESPALIER_DIGITS_DATA, .steps = 2000, .batch = 32, .seed = 1, .report = 500};
  parse_options(argc, argv, &options);
  setvbuf(stdout, NULL, _IOLBF, 0); /* progress shows as it is made, also through a pipe */
  struct esp_client_options client_options = ESP_CLIENT_OPTIONS_INIT;
  client_options.target = options.server;
  client_options.worker = options.worker;
  esp_client *client = NULL;
  struct esp_status st;
  enum esp_code code = digits_load(options.data, &data, &st);
  if (code == ESP_OK)
    code = esp_client_open(&client_options, &client, &st);
  if (code == ESP_OK)
    code = strcmp(options.role, "train") == 0 ? train(client, &options, &st) : evaluate(client, &st);
  esp_client_close(client);
  if (code == ESP_OK)
    return EXIT_SUCCESS;
  fprintf(stderr, "espalier-digits: %s: %s\n", esp_code_name(code), st.message);
  return EXIT_FAILURE;
}
