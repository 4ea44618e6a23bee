/* espbench: measures an Espalier server that it starts itself, on this machine. docs/performance.md tells what the
 * figures are.
 *
 *   espbench admin [--seconds N] [--json] [--espalierd PATH]
 *
 * Exit code 0: it was measured, and all values are right; 1: something failed, and a line on stderr says what; 2: a bad
 * command line. */
#include <getopt.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/bench.h"

enum { EXIT_USAGE = 2 };

static const struct command {
  const char *name;
  int (*run)(const struct bench_options *options);
  const char *help; /* NULL: for espbench itself */
} commands[] = {
    {"admin", bench_admin, "how long freezes and thaws take under full load"},
    {"worker", bench_worker, NULL},
    {"operator", bench_operator, NULL},
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
  bench_check(esp_client_open(&options, &client, &st), "open", &st);
  return client;
}

static _Noreturn void usage(void) {
  fprintf(stderr, "usage: espbench COMMAND [--seconds N] [--json] [--espalierd PATH]\n");
  for (size_t i = 0; i < COMMANDS_LEN; i++) {
    if (commands[i].help != NULL)
      fprintf(stderr, "  %-8s %s\n", commands[i].name, commands[i].help);
  }
  exit(EXIT_USAGE);
}

static uint64_t number(const char *text) {
  char *end;
  unsigned long long value = strtoull(text, &end, 10);
  if (*text < '0' || *text > '9' || *end != '\0' || value > 86400)
    usage();
  return value;
}

static void read_options(int argc, char **argv, struct bench_options *ret) {
  static const struct option table[] = {{"server", required_argument, NULL, 'a'},
                                        {"seconds", required_argument, NULL, 's'},
                                        {"espalierd", required_argument, NULL, 'e'},
                                        {"json", no_argument, NULL, 'j'},
                                        {0}};
  int which;
  while ((which = getopt_long(argc, argv, "", table, NULL)) != -1) {
    if (which == 'a')
      ret->server = optarg;
    else if (which == 's')
      ret->seconds = number(optarg);
    else if (which == 'e')
      ret->espalierd = optarg;
    else if (which == 'j')
      ret->json = true;
    else
      usage();
  }
  if (optind < argc || ret->seconds == 0)
    usage();
}

int main(int argc, char **argv) {
  /* As the client's header recommends to who moves large tensors. */
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 64 << 20);
  struct bench_options options = {.seconds = 60, .espalierd = ESPALIERD};
  for (size_t i = 0; i < COMMANDS_LEN && argc > 1; i++) {
    if (strcmp(argv[1], commands[i].name) == 0) {
      read_options(argc - 1, argv + 1, &options);
      return commands[i].run(&options);
    }
  }
  usage();
}
