# SPDX-License-Identifier: Apache-2.0
# Included by the project's own build and, once installed, by mor-config.cmake: one place says what the library is linked to.

# Attaches to the interface target every optional dependency for which a target exists.
#   OpenMP          threads of the host backend
#   nlohmann/json   needed by mor/io only
function(mor_attach_dependencies target)
  find_package(OpenMP QUIET COMPONENTS CXX)
  foreach(dependency OpenMP::OpenMP_CXX nlohmann_json::nlohmann_json)
    if(TARGET ${dependency})
      target_link_libraries(${target} INTERFACE "$<BUILD_INTERFACE:${dependency}>")
    endif()
  endforeach()
endfunction()

# Attaches what a program with CUDA sources needs. CMake 3.25 knows no C++20 for CUDA, hence the plain option; the other one
# lets device code call constexpr functions of the standard library.
function(mor_attach_cuda target)
  find_package(CUDAToolkit QUIET)
  target_compile_options(${target} INTERFACE "$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20;--expt-relaxed-constexpr>")
  foreach(dependency CUDA::cudart CUDA::cublasLt CUDA::nvtx3)
    if(TARGET ${dependency})
      target_link_libraries(${target} INTERFACE "$<BUILD_INTERFACE:${dependency}>")
    endif()
  endforeach()
endfunction()
