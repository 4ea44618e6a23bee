# What every target of ours is built with, and how one is declared.

# A target of nothing but flags.
add_library(espalier_flags INTERFACE)
target_compile_definitions(espalier_flags INTERFACE _GNU_SOURCE ESPALIER_VERSION="${PROJECT_VERSION}")
target_include_directories(espalier_flags INTERFACE ${PROJECT_SOURCE_DIR})
# Determinism (docs/architecture.md): no contraction, no fast-math anywhere; -fno-math-errno lets sqrt vectorise.
target_compile_options(espalier_flags INTERFACE
  -Wall -Wextra -Wshadow -Wpointer-arith -Wwrite-strings -Wvla -Wformat=2 -Wundef
  $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes;-Wmissing-prototypes>
  -ffp-contract=off -fno-math-errno)
if(CMAKE_C_COMPILER_ID STREQUAL Clang)
  target_compile_options(espalier_flags INTERFACE -Wno-unknown-pragmas) # GCC ivdep, of the kernels
endif()
if(ESPALIER_WERROR)
  target_compile_options(espalier_flags INTERFACE -Werror)
endif()
# gRPC's .pc names all of Abseil; what is not used is not linked.
add_link_options(-Wl,--as-needed)
if(ESPALIER_SANITIZE)
  add_compile_options(-fsanitize=${ESPALIER_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${ESPALIER_SANITIZE})
endif()

# esp_library(name SOURCES ... LINKS ...): an internal static library.
function(esp_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINKS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC ${ARG_LINKS} PRIVATE espalier_flags)
endfunction()
