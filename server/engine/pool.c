/* The pool: a queue of jobs under one mutex. A thread takes one share of the first job at a time; the job leaves the
 * queue with its last share, so many threads work on one job without a node for each. */
#include "engine/pool.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/check.h"

struct esp_pool {
  pthread_mutex_t mutex;
  pthread_cond_t work;   /* a share is to be had, or the pool is closing */
  struct esp_job *first; /* the queue */
  struct esp_job *last;
  bool closing;
  bool is_lent;     /* a caller of esp_pool_run_here runs a job in a thread's stead: nobody begins another */
  unsigned running; /* threads that run a job */
  unsigned threads_len;
  pthread_t threads[];
};

static void *pool_thread(void *data) {
  struct esp_pool *pool = data;
  pthread_mutex_lock(&pool->mutex);
  for (;;) {
    while (pool->first == NULL ? !pool->closing : pool->is_lent)
      pthread_cond_wait(&pool->work, &pool->mutex);
    struct esp_job *job = pool->first;
    if (job == NULL)
      break;
    unsigned share = job->taken++;
    if (job->taken == job->shares)
      pool->first = job->next;
    pool->running++;
    pthread_mutex_unlock(&pool->mutex);
    job->run(job, share);
    pthread_mutex_lock(&pool->mutex);
    pool->running--;
  }
  pthread_mutex_unlock(&pool->mutex);
  return NULL;
}

enum esp_code esp_pool_new(unsigned threads, const char *name, struct esp_pool **ret, struct esp_status *st) {
  ESP_CHECK(threads > 0);
  struct esp_pool *pool = esp_calloc(1, sizeof(*pool) + threads * sizeof(pool->threads[0]));
  if (pool == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a pool of %u threads", threads);
  pthread_mutex_init(&pool->mutex, NULL);
  pthread_cond_init(&pool->work, NULL);
  for (unsigned i = 0; i < threads; i++) {
    if (pthread_create(&pool->threads[i], NULL, pool_thread, pool) != 0) {
      esp_pool_free(pool);
      return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "the system refused thread %u of %u", i + 1, threads);
    }
    pool->threads_len++;
    char text[32];
    snprintf(text, sizeof(text), "%s-%u", name, i);
    pthread_setname_np(pool->threads[i], text); /* for people; a name over 15 bytes is not set */
  }
  *ret = pool;
  return ESP_OK;
}

void esp_pool_free(struct esp_pool *pool) {
  if (pool == NULL)
    return;
  pthread_mutex_lock(&pool->mutex);
  pool->closing = true;
  pthread_cond_broadcast(&pool->work);
  pthread_mutex_unlock(&pool->mutex);
  for (unsigned i = 0; i < pool->threads_len; i++)
    pthread_join(pool->threads[i], NULL);
  pthread_cond_destroy(&pool->work);
  pthread_mutex_destroy(&pool->mutex);
  esp_free(pool);
}

static void put_first(struct esp_pool *pool, struct esp_job *job) {
  job->next = pool->first;
  if (pool->first == NULL)
    pool->last = job;
  pool->first = job;
}

static void put_last(struct esp_pool *pool, struct esp_job *job) {
  job->next = NULL;
  if (pool->first == NULL)
    pool->first = job;
  else
    pool->last->next = job;
  pool->last = job;
}

static void submit(struct esp_pool *pool, struct esp_job *job, void (*put)(struct esp_pool *, struct esp_job *)) {
  ESP_CHECK(job->shares > 0);
  /* Read before the job is handed over: from then on it is the pool's, and soon its owner's again. */
  bool wide = job->shares > 1;
  pthread_mutex_lock(&pool->mutex);
  job->taken = 0;
  put(pool, job);
  pthread_mutex_unlock(&pool->mutex);
  /* After the unlock, or who is woken waits for the mutex at once. */
  if (wide)
    pthread_cond_broadcast(&pool->work);
  else
    pthread_cond_signal(&pool->work);
}

void esp_pool_submit(struct esp_pool *pool, struct esp_job *job) {
  submit(pool, job, put_last);
}

void esp_pool_submit_first(struct esp_pool *pool, struct esp_job *job) {
  submit(pool, job, put_first);
}

bool esp_pool_run_here(struct esp_pool *pool, struct esp_job *job) {
  ESP_CHECK(job->shares == 1 && pool->threads_len == 1);
  pthread_mutex_lock(&pool->mutex);
  bool is_free = pool->first == NULL && pool->running == 0 && !pool->is_lent;
  pool->is_lent |= is_free;
  pthread_mutex_unlock(&pool->mutex);
  if (!is_free)
    return false;
  job->run(job, 0);
  pthread_mutex_lock(&pool->mutex);
  pool->is_lent = false;
  bool has_work = pool->first != NULL;
  pthread_mutex_unlock(&pool->mutex);
  if (has_work)
    pthread_cond_signal(&pool->work);
  return true;
}

void esp_pool_hurry(struct esp_pool *pool, struct esp_job *job) {
  pthread_mutex_lock(&pool->mutex);
  struct esp_job *before = pool->first;
  while (before != NULL && before->next != job)
    before = before->next;
  if (before != NULL) { /* it waits, and is not the first */
    before->next = job->next;
    if (pool->last == job)
      pool->last = before;
    put_first(pool, job);
  }
  pthread_mutex_unlock(&pool->mutex);
}
