/* The standard reflection service, under both of its names: what services, messages and files there are.
 *
 * Happy path: a request is answered from the descriptors that are built into the program; the next one is read when the
 * answer was sent, so a stream holds one of each. A file comes with those that it imports.
 *
 * How it fails: what is not there is an answer with NOT_FOUND in it, as the standard has it; a request that is too long
 * or none at all ends the stream. */
#include <grpc/reflection/v1/reflection.pb-c.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "rpc/descriptors.h"
#include "rpc/methods.h"

#define REQUEST_BYTES_MAX 8192             /* it is sent back in the answer */
#define ANSWER_BYTES_MAX ((size_t)1 << 20) /* of all files and more */

typedef Grpc__Reflection__V1__ServerReflectionRequest request_type;
typedef Grpc__Reflection__V1__ServerReflectionResponse response_type;

#define REQUEST_CASE(name) GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##name
#define RESPONSE_CASE(name) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##name

struct reflection_state {
  struct esp_decoded descriptors; /* loaded with the first request */
};

/* One answer while it is made; what it points to lives in the arena or in the descriptors. */
struct answer {
  struct esp_arena arena;
  const esp_file_set *set;
  response_type response;
  Grpc__Reflection__V1__FileDescriptorResponse files;
  Grpc__Reflection__V1__ExtensionNumberResponse numbers;
  Grpc__Reflection__V1__ListServiceResponse services;
  Grpc__Reflection__V1__ErrorResponse error;
  char text[512]; /* of the error */
};

static bool answer_error(struct answer *answer, enum esp_code code, const char *what, const char *name) {
  (void)snprintf(answer->text, sizeof(answer->text), "%s%.255s", what, name);
  answer->error.error_code = code;
  answer->error.error_message = answer->text;
  answer->response.error_response = &answer->error;
  answer->response.message_response_case = RESPONSE_CASE(ERROR_RESPONSE);
  return true;
}

static bool answer_not_found(struct answer *answer, const char *what, const char *name) {
  return answer_error(answer, ESP_NOT_FOUND, what, name);
}

/* Marks the file and all that it imports, directly or not: those come before it. */
static void mark_imports(const esp_file_set *set, size_t file, bool *marks) {
  marks[file] = true;
  for (size_t i = file + 1; i-- > 0;) {
    for (size_t j = 0; marks[i] && j < set->file[i]->n_dependency; j++)
      marks[esp_descriptors_file(set, set->file[i]->dependency[j])] = true;
  }
}

static bool pack_file(struct answer *answer, const Espalier__Descriptor__File *file, ProtobufCBinaryData *ret) {
  ret->len = protobuf_c_message_get_packed_size(&file->base);
  ret->data = esp_arena_alloc(&answer->arena, ret->len);
  if (ret->data != NULL)
    (void)protobuf_c_message_pack(&file->base, ret->data);
  return ret->data != NULL;
}

/* The file that was asked for comes first. */
static bool answer_file(struct answer *answer, size_t file) {
  const esp_file_set *set = answer->set;
  bool *marks = esp_arena_alloc(&answer->arena, (set->n_file + 1) * sizeof(*marks));
  ProtobufCBinaryData *files = esp_arena_alloc(&answer->arena, set->n_file * sizeof(*files));
  if (marks == NULL || files == NULL)
    return false;
  memset(marks, 0, (set->n_file + 1) * sizeof(*marks));
  mark_imports(set, file, marks);
  for (size_t i = file + 1; i-- > 0;) {
    if (marks[i] && !pack_file(answer, set->file[i], &files[answer->files.n_file_descriptor_proto++]))
      return false;
  }
  answer->files.file_descriptor_proto = files;
  answer->response.file_descriptor_response = &answer->files;
  answer->response.message_response_case = RESPONSE_CASE(FILE_DESCRIPTOR_RESPONSE);
  return true;
}

/* No message of ours can be extended, so a type that is known has none. */
static bool answer_extension_numbers(struct answer *answer, char *type) {
  answer->numbers.base_type_name = type;
  answer->response.all_extension_numbers_response = &answer->numbers;
  answer->response.message_response_case = RESPONSE_CASE(ALL_EXTENSION_NUMBERS_RESPONSE);
  return true;
}

static Grpc__Reflection__V1__ServiceResponse *name_service(struct answer *answer, const char *package,
                                                           const char *name) {
  size_t size = strlen(package) + strlen(name) + 2;
  Grpc__Reflection__V1__ServiceResponse *service = esp_arena_alloc(&answer->arena, sizeof(*service));
  char *text = esp_arena_alloc(&answer->arena, size);
  if (service == NULL || text == NULL)
    return NULL;
  (void)snprintf(text, size, "%s.%s", package, name);
  grpc__reflection__v1__service_response__init(service);
  service->name = text;
  return service;
}

static bool answer_services(struct answer *answer) {
  const esp_file_set *set = answer->set;
  size_t len = 0;
  for (size_t i = 0; i < set->n_file; i++)
    len += set->file[i]->n_service;
  answer->services.service = esp_arena_alloc(&answer->arena, len * sizeof(*answer->services.service));
  if (answer->services.service == NULL)
    return false;
  for (size_t i = 0; i < set->n_file; i++) {
    for (size_t j = 0; j < set->file[i]->n_service; j++) {
      Grpc__Reflection__V1__ServiceResponse *service =
          name_service(answer, set->file[i]->package, set->file[i]->service[j]->name);
      if (service == NULL)
        return false;
      answer->services.service[answer->services.n_service++] = service;
    }
  }
  answer->response.list_services_response = &answer->services;
  answer->response.message_response_case = RESPONSE_CASE(LIST_SERVICES_RESPONSE);
  return true;
}

/* False without memory. */
static bool answer_request(struct answer *answer, const request_type *request) {
  const esp_file_set *set = answer->set;
  size_t file;
  switch (request->message_request_case) {
  case REQUEST_CASE(FILE_BY_FILENAME):
    file = esp_descriptors_file(set, request->file_by_filename);
    return file < set->n_file ? answer_file(answer, file)
                              : answer_not_found(answer, "there is no file ", request->file_by_filename);
  case REQUEST_CASE(FILE_CONTAINING_SYMBOL):
    file = esp_descriptors_symbol(set, request->file_containing_symbol);
    return file < set->n_file ? answer_file(answer, file)
                              : answer_not_found(answer, "there is no symbol ", request->file_containing_symbol);
  case REQUEST_CASE(FILE_CONTAINING_EXTENSION):
    return answer_not_found(answer, "there is no extension of ", request->file_containing_extension->containing_type);
  case REQUEST_CASE(ALL_EXTENSION_NUMBERS_OF_TYPE):
    return esp_descriptors_has_message(set, request->all_extension_numbers_of_type)
               ? answer_extension_numbers(answer, request->all_extension_numbers_of_type)
               : answer_not_found(answer, "there is no message ", request->all_extension_numbers_of_type);
  case REQUEST_CASE(LIST_SERVICES):
    return answer_services(answer);
  default:
    return answer_error(answer, ESP_INVALID_ARGUMENT, "the request asks for nothing that is known", "");
  }
}

static void write_answer(struct esp_call *call, request_type *request) {
  const struct reflection_state *state = call->state;
  struct answer answer = {.set = (const esp_file_set *)state->descriptors.message,
                          .response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT,
                          .files = GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT,
                          .numbers = GRPC__REFLECTION__V1__EXTENSION_NUMBER_RESPONSE__INIT,
                          .services = GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT,
                          .error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT};
  esp_arena_init(&answer.arena, ANSWER_BYTES_MAX);
  answer.response.valid_host = request->host;
  answer.response.original_request = request;
  if (answer_request(&answer, request))
    esp_call_write_message(call, &answer.response.base);
  else
    esp_call_fail(call, ESP_RESOURCE_EXHAUSTED, "no memory for an answer");
  esp_arena_done(&answer.arena);
}

static void message(struct esp_call *call) {
  struct reflection_state *state = call->state;
  struct esp_decoded request = {0};
  struct esp_cursor cursor = esp_cursor_init(call->spans, call->spans_len);
  if (cursor.left > REQUEST_BYTES_MAX) {
    esp_call_fail(call, ESP_INVALID_ARGUMENT, "the request has %" PRIu64 " bytes, %d are allowed",
                  (uint64_t)cursor.left, REQUEST_BYTES_MAX);
    return;
  }
  struct esp_status st;
  enum esp_code code = state->descriptors.message == NULL ? esp_descriptors_load(&state->descriptors, &st) : ESP_OK;
  if (code != ESP_OK)
    esp_call_finish(call, code, &st);
  else if (esp_call_decode(call, &grpc__reflection__v1__server_reflection_request__descriptor, &request))
    write_answer(call, (request_type *)request.message);
  esp_decoded_done(&request);
}

static void half_close(struct esp_call *call) {
  esp_call_finish(call, ESP_OK, NULL);
}

static void drain(struct esp_call *call) {
  esp_call_fail(call, ESP_UNAVAILABLE, ESP_SHUTDOWN_TEXT);
}

static void release(struct esp_call *call) {
  esp_decoded_done(&((struct reflection_state *)call->state)->descriptors);
}

#define REFLECTION(version)                                                                                            \
  {                                                                                                                    \
    .path = "/grpc.reflection." version ".ServerReflection/ServerReflectionInfo",                                      \
    .state_size = sizeof(struct reflection_state), .message = message, .half_close = half_close,                       \
    .writable = esp_call_read, .drain = drain, .release = release,                                                     \
  }

const struct esp_method esp_method_reflection_v1 = REFLECTION("v1");
const struct esp_method esp_method_reflection_v1alpha = REFLECTION("v1alpha");
