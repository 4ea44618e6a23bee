/* Explanations as bytes. As codec_history.c: pages are copied into one result, whose strings are in an arena, and whose
 * facts are in one list. */
#include <string.h>

#include "base/alloc.h"
#include "client/src/codec_pb.h"
#include "espalier/v1/admin.pb-c.h"

#define RESULT_BYTES_MAX ((size_t)1 << 30) /* of the strings of one answer */

struct explain_box {
  struct esp_explanation explanation; /* first, so that the caller's pointer is the box's */
  struct esp_leaf_explanation *list;  /* owned; explanation.leaves */
  size_t capacity;                    /* of list */
  struct esp_leaf_fact *facts;        /* owned; of all, in their order */
  size_t facts_len;
  size_t facts_capacity;
  struct esp_arena arena; /* the strings */
};

enum esp_code esp_encode_explain(struct esp_buf *buf, const char *selection, struct esp_status *st) {
  Espalier__V1__ExplainRequest message = ESPALIER__V1__EXPLAIN_REQUEST__INIT;
  message.selection = esp_pb_text(selection);
  return esp_pb_pack(buf, &message.base, st);
}

void esp_explanation_free(struct esp_explanation *explanation) {
  struct explain_box *box = (struct explain_box *)explanation;
  if (box == NULL)
    return;
  esp_arena_done(&box->arena);
  esp_free(box->list);
  esp_free(box->facts);
  esp_free(box);
}

static bool copy_text(struct esp_arena *arena, const char *text, const char **ret) {
  *ret = text[0] == 0 ? "" : esp_arena_strndup(arena, text, strlen(text));
  return *ret != NULL;
}

static bool add_fact(struct explain_box *box, const Espalier__V1__ExplainResponse__Fact *from) {
  if (!esp_grow((void **)&box->facts, &box->facts_capacity, box->facts_len + 1, sizeof *box->facts))
    return false;
  struct esp_leaf_fact *fact = &box->facts[box->facts_len];
  fact->epoch = from->epoch;
  bool ok = copy_text(&box->arena, from->what, &fact->what) && copy_text(&box->arena, from->value, &fact->value) &&
            copy_text(&box->arena, from->because, &fact->because);
  box->facts_len += ok;
  return ok;
}

static bool add_leaf(struct explain_box *box, const Espalier__V1__ExplainResponse__Leaf *from) {
  size_t len = box->explanation.len;
  if (!esp_grow((void **)&box->list, &box->capacity, len + 1, sizeof *box->list))
    return false;
  struct esp_leaf_explanation *leaf = &box->list[len];
  *leaf = (struct esp_leaf_explanation){.leaf = from->id, .facts_len = from->n_facts};
  bool ok = copy_text(&box->arena, from->path, &leaf->path);
  for (size_t i = 0; i < from->n_facts && ok; i++)
    ok = add_fact(box, from->facts[i]);
  box->explanation.len += ok;
  return ok;
}

/* The list of facts moves while it grows, so that pointers into it are set at each page's end. */
static bool add_page(struct explain_box *box, const Espalier__V1__ExplainResponse *page) {
  bool ok = true;
  for (size_t i = 0; i < page->n_leaves && ok; i++)
    ok = add_leaf(box, page->leaves[i]);
  size_t at = 0;
  for (size_t i = 0; i < box->explanation.len; i++) {
    box->list[i].facts = box->facts == NULL ? NULL : box->facts + at;
    at += box->list[i].facts_len;
  }
  box->explanation.epoch = page->epoch;
  box->explanation.commit = page->commit;
  box->explanation.lineage = page->lineage;
  box->explanation.leaves = box->list;
  return ok;
}

static struct explain_box *explain_box_new(void) {
  struct explain_box *box = esp_calloc(1, sizeof *box);
  if (box != NULL)
    esp_arena_init(&box->arena, RESULT_BYTES_MAX);
  return box;
}

enum esp_code esp_decode_explain(struct esp_in in, struct esp_explanation **result, struct esp_status *st) {
  struct esp_arena arena;
  Espalier__V1__ExplainResponse *page;
  enum esp_code code = esp_pb_unpack(in, NO_CHUNKS, &espalier__v1__explain_response__descriptor, &arena, &page, st);
  if (code == ESP_OK) {
    struct explain_box *box = *result == NULL ? explain_box_new() : (struct explain_box *)*result;
    if (box != NULL)
      *result = &box->explanation;
    if (box == NULL || !add_page(box, page))
      code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for an explanation of so many leaves");
  }
  esp_arena_done(&arena);
  return code;
}
