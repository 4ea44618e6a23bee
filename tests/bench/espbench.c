/* espbench: measures an Espalier server that it starts itself, on this machine. docs/performance.md tells what the
 * figures are.
 *
 *   espbench COMMAND [--rounds N] [--seconds N] [--limits] [--json] [--workers N] [--optimizer EXPR] [--wire DTYPE]
 *                    [--isa NAME] [--espalierd PATH]
 *
 * Each command takes those of the options that mean something to it. Exit code 0: it was measured, and all values are
 * right; 1: something failed, and a line on stderr says what; 2: a bad command line. */
#include <getopt.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/limits.h"

#define OPTIMIZER "sgd(lr=0.001)" /* if not told otherwise */
/* Of each call: 64 workers' steps, of which each waits for all others, on a machine that makes one in two seconds. */
#define DEADLINE_MS 120000

enum { EXIT_USAGE = 2 };

/* The options of all commands. */
static const struct option all_options[] = {{"server", required_argument, NULL, 'a'},
                                            {"rounds", required_argument, NULL, 'r'},
                                            {"seconds", required_argument, NULL, 's'},
                                            {"limits", no_argument, NULL, 'l'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"workers", required_argument, NULL, 'w'},
                                            {"optimizer", required_argument, NULL, 'o'},
                                            {"wire", required_argument, NULL, 'd'},
                                            {"isa", required_argument, NULL, 'i'},
                                            {"rank", required_argument, NULL, 'k'},
                                            {"espalierd", required_argument, NULL, 'e'},
                                            {0}};

static const struct command {
  const char *name;
  int (*run)(const struct bench_options *options);
  const char *takes; /* the letters of its options */
  const char *help;  /* NULL: for espbench itself */
  uint64_t rounds;   /* if not told otherwise, as are the next */
  uint64_t seconds;
  uint64_t workers;
} commands[] = {
    {"admin", bench_admin, "rsje", "how long freezes and thaws take under full load", 4, 60, 0},
    {"step", bench_step, "rsljwode", "how fast workers push gradients and pull weights", 12, 120, 1},
    {"many", bench_many, "rsjwoe", "the same of many workers, against two", 3, 120, 64},
    {"kernels", bench_kernels, "rij", "each rule beside a triad, with 1 and 2 threads", 12, 0, 0},
    {"latency", bench_latency, "rlje", "pushes and pulls of 1 KiB, one at a time and 16 at once", 12, 0, 0},
    {"small", bench_small, "rje", "2,000 tensors of 1 KiB beside one of as many bytes", 12, 0, 0},
    {"delta", bench_delta, "rje", "pulls of which 0, 50, 90 and 100 % are frozen", 12, 0, 0},
    {"worker", bench_worker, "ad", NULL, 0, 0, 0},
    {"crowd", bench_crowd, "aw", NULL, 0, 0, 1},
    {"peer", bench_peer, "aodk", NULL, 0, 0, 0},
    {"operator", bench_operator, "a", NULL, 0, 0, 0},
    {"tcp-server", limits_tcp_server, "", NULL, 0, 0, 0},
    {"tcp-worker", limits_tcp_worker, "a", NULL, 0, 0, 0},
    {"grpc-server", limits_grpc_server, "", NULL, 0, 0, 0},
    {"grpc-worker", limits_grpc_worker, "a", NULL, 0, 0, 0},
};
#define COMMANDS_LEN (sizeof(commands) / sizeof(commands[0]))

void bench_die(const char *format, ...) {
  va_list args;
  va_start(args, format);
  fprintf(stderr, "espbench: ");
  vfprintf(stderr, format, args);
  fprintf(stderr, "\n");
  va_end(args);
  process_kill_all();
  _Exit(EXIT_FAILURE);
}

void bench_check(enum esp_code code, const char *what, const struct esp_status *st) {
  if (code != ESP_OK)
    bench_die("%s: %s: %s", what, esp_code_name(code), st->message);
}

esp_client *bench_open(const char *server) {
  struct esp_client_options options = ESP_CLIENT_OPTIONS_INIT;
  struct esp_status st;
  esp_client *client = NULL;
  options.target = server;
  options.deadline_ms = DEADLINE_MS;
  bench_check(esp_client_open(&options, &client, &st), "open", &st);
  return client;
}

static _Noreturn void usage(void) {
  fprintf(stderr, "usage: espbench COMMAND [OPTIONS]\n");
  for (const struct command *command = commands; command < commands + COMMANDS_LEN; command++) {
    if (command->help == NULL)
      continue;
    fprintf(stderr, "  %-8s %s\n          ", command->name, command->help);
    for (const struct option *option = all_options; option->name != NULL; option++) {
      if (strchr(command->takes, option->val) != NULL)
        fprintf(stderr, " --%s%s", option->name, option->has_arg == required_argument ? "=..." : "");
    }
    fprintf(stderr, "\n");
  }
  exit(EXIT_USAGE);
}

static uint64_t number(const char *text, uint64_t min, uint64_t max) {
  char *end;
  unsigned long long value = strtoull(text, &end, 10);
  if (*text < '0' || *text > '9' || *end != '\0' || value < min || value > max)
    usage();
  return value;
}

static enum esp_leaf_dtype dtype(const char *text) {
  if (strcmp(text, "f32") == 0)
    return 0; /* the workload's own */
  if (strcmp(text, "bf16") == 0)
    return ESP_BF16;
  if (strcmp(text, "f16") != 0)
    usage();
  return ESP_F16;
}

static void take_option(struct bench_options *ret, int which) {
  switch (which) {
  case 'a':
    ret->server = optarg;
    break;
  case 'r':
    ret->rounds = number(optarg, 1, 1000);
    break;
  case 's':
    ret->seconds = number(optarg, 1, 86400);
    break;
  case 'l':
    ret->limits = true;
    break;
  case 'j':
    ret->json = true;
    break;
  case 'w':
    ret->workers = number(optarg, 1, WORKERS_MAX);
    break;
  case 'o':
    ret->optimizer = optarg;
    break;
  case 'k':
    ret->rank = number(optarg, 0, WORKERS_MAX - 1);
    break;
  case 'd':
    ret->wire = dtype(optarg);
    break;
  case 'i':
    ret->isa = optarg;
    break;
  case 'e':
    ret->espalierd = optarg;
    break;
  default:
    usage();
  }
}

static struct bench_options read_options(const struct command *command, int argc, char **argv) {
  struct bench_options options = {.rounds = command->rounds, .seconds = command->seconds, .workers = command->workers};
  options.optimizer = strchr(command->takes, 'o') != NULL ? OPTIMIZER : NULL;
  options.isa = strchr(command->takes, 'i') != NULL ? "auto" : NULL;
  options.espalierd = strchr(command->takes, 'e') != NULL ? ESPALIERD : NULL;
  for (int which; (which = getopt_long(argc, argv, "", all_options, NULL)) != -1;) {
    if (strchr(command->takes, which) == NULL)
      usage();
    take_option(&options, which);
  }
  if (optind < argc)
    usage();
  return options;
}

int main(int argc, char **argv) {
  /* As the client's header recommends to who moves large tensors. */
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 64 << 20);
  for (size_t i = 0; i < COMMANDS_LEN && argc > 1; i++) {
    if (strcmp(argv[1], commands[i].name) == 0) {
      struct bench_options options = read_options(&commands[i], argc - 1, argv + 1);
      return commands[i].run(&options);
    }
  }
  usage();
}
