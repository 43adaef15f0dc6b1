# SPDX-License-Identifier: Apache-2.0
# Choices made only when mor is the project being built, never for a project that uses it.

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

find_program(MOR_CCACHE ccache)
mark_as_advanced(MOR_CCACHE)
foreach(language CXX CUDA)
  if(MOR_CCACHE AND NOT CMAKE_${language}_COMPILER_LAUNCHER)
    set(CMAKE_${language}_COMPILER_LAUNCHER "${MOR_CCACHE}")
  endif()
endforeach()

if(MOR_SANITIZE)
  set(mor_sanitize_flags -fsanitize=${MOR_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:${mor_sanitize_flags}>")
  add_link_options(-fsanitize=${MOR_SANITIZE})
endif()

set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
