# How targets are made. A folder's library takes every .cc under the folder, so no source can be
# outside a target; a table of named entries (kernels, block types, formats) is generated from names.
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Werror;-Wno-unused-parameter;-Wno-missing-field-initializers>")
# Deterministic arithmetic: a*b+c is fused only where the source says so.
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)
if(TESSERA_SANITIZE)
  string(REPLACE ";" "," _sanitize "${TESSERA_SANITIZE}")
  add_compile_options(-fsanitize=${_sanitize} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${_sanitize})
endif()
if(TESSERA_SANITIZE MATCHES "undefined" AND CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  add_compile_options(-fsanitize-ignorelist=${CMAKE_CURRENT_LIST_DIR}/sanitizer_ignorelist.txt)
  # Clang 14 takes three times as long with checks of pointer sums; what lies behind a pointer AddressSanitizer checks.
  add_compile_options(-fno-sanitize=pointer-overflow)
endif()

# Headers of others that most sources read. With TESSERA_BATCHES they are precompiled, once for targets that are compiled
# alike: the first of them makes the header, the others reuse it. That each source names what it needs is proven by the
# `dev` preset and by lint.
set(TESSERA_COMMON_HEADERS <algorithm> <atomic> <chrono> <condition_variable> <cstdint> <deque> <functional> <map> <memory>
  <mutex> <optional> <set> <span> <string> <thread> <utility> <variant> <vector> <absl/container/flat_hash_map.h>
  <absl/status/status.h> <absl/status/statusor.h> <absl/strings/str_cat.h> <absl/strings/string_view.h>)
function(tessera_precompiled target owner)
  if(NOT TESSERA_BATCHES)
    return()
  elseif(target STREQUAL owner)
    target_precompile_headers(${target} PRIVATE ${TESSERA_COMMON_HEADERS} ${ARGN})
  else()
    target_precompile_headers(${target} REUSE_FROM ${owner})
  endif()
endfunction()

# Sources of a target are compiled in batches of at most `size` from one folder, so that a header is read once a batch:
# names in anonymous namespaces are therefore unique in a folder, but where the folder is a table of alike entries
# (architectures, quantized layouts). Sources with flags of their own stay alone.
set(TESSERA_ALIKE "/import/(architectures|quantizations)/")
function(tessera_batches target size)
  if(NOT TESSERA_BATCHES)
    return()
  endif()
  get_target_property(sources ${target} SOURCES)
  set(folders)
  foreach(source ${sources})
    if(source MATCHES ${TESSERA_ALIKE})
      set_property(SOURCE ${source} PROPERTY SKIP_UNITY_BUILD_INCLUSION ON)
      continue()
    endif()
    get_filename_component(folder ${source} DIRECTORY)
    string(MAKE_C_IDENTIFIER "${folder}" id)
    list(APPEND folders ${id})
    list(APPEND in_${id} ${source})
  endforeach()
  list(REMOVE_DUPLICATES folders)
  foreach(id ${folders})
    list(LENGTH in_${id} count)
    math(EXPR batches "(${count} + ${size} - 1) / ${size}")
    set(at 0)
    foreach(source ${in_${id}})
      math(EXPR batch "${at} * ${batches} / ${count}")
      math(EXPR at "${at} + 1")
      set_property(SOURCE ${source} PROPERTY UNITY_GROUP "${id}_${batch}")
    endforeach()
  endforeach()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  # A type with a member of an anonymous namespace is taken for one of a header.
  target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
endfunction()

# tessera_folder(name DEPS folder... LIBS third-party... EXCLUDE pattern... BATCH size HOT): the static library of one
# folder. HOT: its own instructions are what a step waits for, so it is optimized in full, in sanitized builds too; it
# parses no bytes from outside, so fuzzing is not guided by it.
function(tessera_folder name)
  cmake_parse_arguments(arg "HOT" "BATCH" "DEPS;LIBS;EXCLUDE" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  foreach(excluded ${arg_EXCLUDE})
    list(FILTER sources EXCLUDE REGEX ${excluded})
  endforeach()
  add_library(tessera_${name} STATIC ${sources})
  if(NOT arg_BATCH)
    set(arg_BATCH 8)
  endif()
  tessera_batches(tessera_${name} ${arg_BATCH})
  if(arg_HOT)
    if(TESSERA_SANITIZE)
      target_compile_options(tessera_${name} PRIVATE -O1)
    endif()
  else()
    target_compile_options(tessera_${name} PRIVATE $<$<CONFIG:Release>:-O1>)
    if(TESSERA_FUZZ)
      target_compile_options(tessera_${name} PRIVATE -fsanitize=fuzzer-no-link)
    endif()
    tessera_precompiled(tessera_${name} tessera_config)
  endif()
  target_include_directories(tessera_${name} PUBLIC ${PROJECT_SOURCE_DIR})
  foreach(dep ${arg_DEPS})
    target_link_libraries(tessera_${name} PUBLIC tessera_${dep})
  endforeach()
  target_link_libraries(tessera_${name} PUBLIC ${arg_LIBS})
endfunction()

# tessera_table(target header function-signature NAMES n...): writes a .cc that calls
# Register<Name>(registry) for each name in order, and adds it to the target.
#   NAMESPACE  where the functions live    PARAMETER  the one parameter's type
function(tessera_table target)
  cmake_parse_arguments(arg "" "FUNCTION;NAMESPACE;PARAMETER;HEADER" "NAMES" ${ARGN})
  set(out ${CMAKE_CURRENT_BINARY_DIR}/${arg_FUNCTION}.gen.cc)
  set(text "// Generated from the name list in CMakeLists.txt.\n#include \"${arg_HEADER}\"\n\nnamespace ${arg_NAMESPACE} {\n")
  foreach(name ${arg_NAMES})
    string(APPEND text "void Register_${name}(${arg_PARAMETER} registry);\n")
  endforeach()
  string(APPEND text "void ${arg_FUNCTION}(${arg_PARAMETER} registry) {\n")
  foreach(name ${arg_NAMES})
    string(APPEND text "  Register_${name}(registry);\n")
  endforeach()
  string(APPEND text "}\n}  // namespace ${arg_NAMESPACE}\n")
  file(CONFIGURE OUTPUT ${out} CONTENT "${text}" @ONLY)
  target_sources(${target} PRIVATE ${out})
endfunction()

# tessera_cuda_library(name architectures source...): device code. Position-independent, so that a bundle may move it.
function(tessera_cuda_library name architectures)
  add_library(${name} STATIC ${ARGN})
  set_target_properties(${name} PROPERTIES CUDA_ARCHITECTURES "${architectures}" CUDA_STANDARD 20 CUDA_RUNTIME_LIBRARY Static UNITY_BUILD OFF)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-O3>)
endfunction()
