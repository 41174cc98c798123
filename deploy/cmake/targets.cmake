# How targets are made. A folder's library takes every .cc under the folder, so no source can be
# outside a target; a table of named entries (kernels, block types, formats) is generated from names.
add_compile_options(-Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-field-initializers)
# Deterministic arithmetic: a*b+c is fused only where the source says so.
add_compile_options(-ffp-contract=off)
if(TESSERA_SANITIZE)
  string(REPLACE ";" "," _sanitize "${TESSERA_SANITIZE}")
  add_compile_options(-fsanitize=${_sanitize} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${_sanitize})
endif()
if(TESSERA_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# Sources of a target are compiled in batches of `size`, so that a header is read once a batch: names in
# anonymous namespaces are therefore unique in a folder. Sources with flags of their own stay alone.
function(tessera_batches target size)
  if(TESSERA_BATCHES)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE ${size})
  endif()
endfunction()

# tessera_folder(name DEPS folder... LIBS third-party... EXCLUDE pattern... BATCH size): the static library of one
# folder.
function(tessera_folder name)
  cmake_parse_arguments(arg "" "BATCH" "DEPS;LIBS;EXCLUDE" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  foreach(excluded ${arg_EXCLUDE})
    list(FILTER sources EXCLUDE REGEX ${excluded})
  endforeach()
  add_library(tessera_${name} STATIC ${sources})
  if(NOT arg_BATCH)
    set(arg_BATCH 8)
  endif()
  tessera_batches(tessera_${name} ${arg_BATCH})
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
