# SPDX-License-Identifier: Apache-2.0
# Decides whether CUDA sources are built, and enables the language when they are.

macro(mor_find_cuda result)  # a macro: enable_language must run in the caller's scope
  set(${result} OFF)
  get_property(mor_languages GLOBAL PROPERTY ENABLED_LANGUAGES)
  # AUTO in a project that uses mor: with its choice of languages, never against it.
  if(MOR_ENABLE_CUDA STREQUAL "ON" OR "CUDA" IN_LIST mor_languages OR (MOR_ENABLE_CUDA STREQUAL "AUTO" AND PROJECT_IS_TOP_LEVEL))
    include(CheckLanguage)
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
      if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND PROJECT_IS_TOP_LEVEL)
        set(CMAKE_CUDA_ARCHITECTURES 90a)  # nvcc 13 would choose 75
      endif()
      enable_language(CUDA)
      set(${result} ON)
    elseif(MOR_ENABLE_CUDA STREQUAL "ON")
      message(FATAL_ERROR "MOR_ENABLE_CUDA is ON, but no CUDA compiler was found: set CMAKE_CUDA_COMPILER or CUDACXX, or set MOR_ENABLE_CUDA to AUTO")
    endif()
  endif()
endmacro()
