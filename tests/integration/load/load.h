/* What the command line of the pusher says, and its two jobs. */
#ifndef LOAD_LOAD_H
#define LOAD_LOAD_H

#include "tests/integration/load/log.h"
#include "tests/integration/load/tree.h"

#define LOAD_THREADS_MAX 64

struct load_options {
  const char *server;        /* NULL: the library's default */
  struct load_tree tree;     /* to declare */
  struct load_recipe recipe; /* of the gradients */
  uint64_t threads;          /* workers */
  uint64_t pushes;           /* of each worker; 0: until SIGTERM */
  uint64_t seed;             /* of the first worker; the next one's is one more */
  uint64_t deadline_ms;      /* of each call */
  bool shared;               /* all workers use one client */
  bool redeclare;            /* a new lineage is no failure: declare again and go on */
  bool paced;                /* each push waits for a line on stdin */
  uint64_t cycles;           /* freezes, each with its thaw, by an operator beside the workers, who end with it */
  const char *selection;     /* of the operator */
  const char *log;           /* NULL: stdout */
  const char *replay;        /* the log to apply; NULL: none */
  uint64_t below;            /* the commit at which a replay ends */
};

/* Pushes as the options say. False, after lines on stderr, where anything failed. */
bool load_push(const struct load_options *options, FILE *log);
/* Makes a running load_push end after what is under way. From a signal handler too. */
void load_push_stop(void);
/* Applies the commits of a log, in their order, and checks that each becomes the same commit and steps as many leaves.
 * False, after a line on stderr, where anything failed. */
bool load_replay(const struct load_options *options);

#endif
