/* pusher: puts load on a server through libespalier, for the tests beside it.
 *
 *   pusher --server ADDRESS --leaf PATH:DTYPE:SHAPE ... [OPTION]...      pushes, and logs each push
 *   pusher --server ADDRESS --leaf ... --replay LOG [--below COMMIT]     applies a log to a server that is new
 *
 * The happy path: the command line is read, SIGTERM is made to end the load in good order, the job is done, the log is
 * closed. Exit code 0: every push succeeded and every answer was right; 1: something failed, and a line on stderr says
 * what; 2: a bad command line. */
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "tests/integration/load/load.h"

enum { EXIT_USAGE = 2 };

enum flag {
  OPTION_SERVER = 1,
  OPTION_LEAF,
  OPTION_THREADS,
  OPTION_PUSHES,
  OPTION_SEED,
  OPTION_DEADLINE,
  OPTION_CYCLES,
  OPTION_SELECTION,
  OPTION_LOG,
  OPTION_REPLAY,
  OPTION_BELOW,
  OPTION_RANDOM,
  OPTION_SUBSET,
  OPTION_SHARED,
  OPTION_REDECLARE,
  OPTION_PACED,
};

static const struct option option_table[] = {
    {"server", required_argument, NULL, OPTION_SERVER},
    {"leaf", required_argument, NULL, OPTION_LEAF},
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"pushes", required_argument, NULL, OPTION_PUSHES},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"deadline-ms", required_argument, NULL, OPTION_DEADLINE},
    {"cycles", required_argument, NULL, OPTION_CYCLES},
    {"selection", required_argument, NULL, OPTION_SELECTION},
    {"log", required_argument, NULL, OPTION_LOG},
    {"replay", required_argument, NULL, OPTION_REPLAY},
    {"below", required_argument, NULL, OPTION_BELOW},
    {"random", no_argument, NULL, OPTION_RANDOM},
    {"subset", no_argument, NULL, OPTION_SUBSET},
    {"shared", no_argument, NULL, OPTION_SHARED},
    {"redeclare", no_argument, NULL, OPTION_REDECLARE},
    {"paced", no_argument, NULL, OPTION_PACED},
    {0},
};

static void usage(const char *what) {
  fprintf(stderr, "pusher: %s; the comment in pusher.c says how it is used\n", what);
  exit(EXIT_USAGE);
}

static uint64_t number(const char *text) {
  char *end;
  unsigned long long value = strtoull(text, &end, 10);
  if (*text < '0' || *text > '9' || *end != '\0')
    usage("an option takes a number");
  return value;
}

static void read_valued(enum flag which, struct load_options *ret) {
  switch (which) {
  case OPTION_SERVER:
    ret->server = optarg;
    break;
  case OPTION_LEAF:
    if (!load_tree_add(&ret->tree, optarg))
      usage("--leaf takes PATH:f32:SHAPE or PATH:f64:SHAPE, at most 64 times");
    break;
  case OPTION_THREADS:
    ret->threads = number(optarg);
    break;
  case OPTION_PUSHES:
    ret->pushes = number(optarg);
    break;
  case OPTION_SEED:
    ret->seed = number(optarg);
    break;
  case OPTION_DEADLINE:
    ret->deadline_ms = number(optarg);
    break;
  case OPTION_CYCLES:
    ret->cycles = number(optarg);
    break;
  case OPTION_SELECTION:
    ret->selection = optarg;
    break;
  case OPTION_LOG:
    ret->log = optarg;
    break;
  case OPTION_REPLAY:
    ret->replay = optarg;
    break;
  case OPTION_BELOW:
    ret->below = number(optarg);
    break;
  default:
    usage("no such option");
  }
}

static void read_options(int argc, char **argv, struct load_options *ret) {
  int which;
  while ((which = getopt_long(argc, argv, "", option_table, NULL)) != -1) {
    switch (which) {
    case OPTION_RANDOM:
      ret->recipe.random = true;
      break;
    case OPTION_SUBSET:
      ret->recipe.subset = true;
      break;
    case OPTION_SHARED:
      ret->shared = true;
      break;
    case OPTION_REDECLARE:
      ret->redeclare = true;
      break;
    case OPTION_PACED:
      ret->paced = true;
      break;
    default:
      read_valued((enum flag)which, ret);
    }
  }
  if (optind < argc || ret->tree.len == 0)
    usage("it takes --leaf, and options only");
  if (ret->threads == 0 || ret->threads > LOAD_THREADS_MAX)
    usage("--threads takes a number from 1 to 64");
  if (ret->cycles > 0 && ret->selection == NULL)
    usage("--cycles needs --selection");
}

/* Waits for SIGTERM, which is blocked in all threads. With a handler it may come to one of gRPC's threads, where the
 * thread sanitizer may put it off for ever. */
static void *await_signal(void *signals) {
  int signal_number;
  if (sigwait(signals, &signal_number) == 0)
    load_push_stop();
  return NULL;
}

static bool push_and_log(const struct load_options *options) {
  FILE *log = options->log == NULL ? stdout : fopen(options->log, "w");
  if (log == NULL || setvbuf(log, NULL, _IOLBF, BUFSIZ) != 0) {
    perror("pusher: the log");
    return false;
  }
  bool good = load_push(options, log);
  bool written = ferror(log) == 0;
  written = fclose(log) == 0 && written;
  if (!written)
    fprintf(stderr, "pusher: the log could not be written\n");
  return good && written;
}

int main(int argc, char **argv) {
  static struct load_options options = {.threads = 1, .seed = 1, .deadline_ms = 30000, .below = UINT64_MAX};
  read_options(argc, argv, &options);
  static sigset_t signals;
  pthread_t waiter;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  if (pthread_sigmask(SIG_BLOCK, &signals, NULL) != 0 || pthread_create(&waiter, NULL, await_signal, &signals) != 0 ||
      pthread_detach(waiter) != 0) {
    fprintf(stderr, "pusher: no thread to be had for signals\n");
    return EXIT_FAILURE;
  }
  bool good = options.replay != NULL ? load_replay(&options) : push_and_log(&options);
  return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
