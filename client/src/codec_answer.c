/* An answer in pages becomes one result.
 *
 * Happy path: the first page makes the result, zeroed, with an arena for its strings and its lists before it in one
 * block; each page is unpacked, added by the result's own function, and dropped.
 *
 * How it fails: a malformed page, what add_page finds wrong with it, or no memory. What there is of the result then is
 * only to be freed. */
#include <string.h>

#include "base/alloc.h"
#include "client/src/codec_pb.h"

#define STRINGS_BYTES_MAX ((size_t)1 << 30) /* of one answer: a million leaves have some hundred each */

/* So that the result behind it may be of any type. */
union head {
  struct esp_answer answer;
  max_align_t align;
};

static struct esp_answer *answer_of(void *result) {
  return &((union head *)result - 1)->answer;
}

static void *answer_new(size_t result_bytes) {
  union head *head = esp_calloc(1, sizeof *head + result_bytes);
  if (head == NULL)
    return NULL;
  esp_arena_init(&head->answer.arena, STRINGS_BYTES_MAX);
  return head + 1;
}

void esp_answer_free(void *result) {
  if (result == NULL)
    return;
  struct esp_answer *answer = answer_of(result);
  esp_arena_done(&answer->arena);
  for (size_t i = 0; i < sizeof answer->lists / sizeof *answer->lists; i++)
    esp_free(answer->lists[i].items);
  esp_free(answer);
}

enum esp_code esp_answer_add_page(const struct esp_answer_kind *kind, struct esp_in in, void *result,
                                  struct esp_status *st) {
  struct esp_arena arena;
  void *page = NULL, *made = NULL;
  enum esp_code code = esp_pb_unpack(in, NO_CHUNKS, kind->page, &arena, &page, st);
  if (code == ESP_OK) {
    memcpy(&made, result, sizeof made);
    made = made == NULL ? answer_new(kind->result_bytes) : made;
    memcpy(result, &made, sizeof made);
    code = made == NULL ? ESP_RESOURCE_EXHAUSTED : kind->add_page(answer_of(made), made, page, st);
    if (code == ESP_RESOURCE_EXHAUSTED)
      code = esp_fail(st, code, "out of memory for %s", kind->name);
  }
  esp_arena_done(&arena);
  return code;
}

void *esp_answer_add(struct esp_answer *answer, size_t list, size_t item_bytes) {
  size_t len = answer->lists[list].len;
  if (!esp_grow(&answer->lists[list].items, &answer->lists[list].capacity, len + 1, item_bytes))
    return NULL;
  answer->lists[list].len++;
  return memset((char *)answer->lists[list].items + len * item_bytes, 0, item_bytes);
}

bool esp_answer_copy_text(struct esp_answer *answer, const char *text, const char **ret) {
  *ret = text[0] == 0 ? "" : esp_arena_strndup(&answer->arena, text, strlen(text));
  return *ret != NULL;
}

bool esp_answer_add_change(struct esp_answer *answer, size_t list, const Espalier__V1__Change *from) {
  struct esp_apply_change *change = esp_answer_add(answer, list, sizeof *change);
  if (change == NULL)
    return false;
  change->leaf = from->leaf_id;
  return esp_answer_copy_text(answer, from->path, &change->path) &&
         esp_answer_copy_text(answer, from->field, &change->field) &&
         esp_answer_copy_text(answer, from->from, &change->from) &&
         esp_answer_copy_text(answer, from->to, &change->to) &&
         esp_answer_copy_text(answer, from->because, &change->because);
}
