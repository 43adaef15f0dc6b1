# SPDX-License-Identifier: Apache-2.0
# What tests, examples and benchmarks have in common. Never applied to a target that users link.

# Options of our own programs: warnings as errors, and this machine's instructions.
function(mor_configure_program target)
  if(MOR_WARNINGS)
    target_compile_options(${target} PRIVATE
      "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wconversion;-Werror>"
      "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-Werror>")
  endif()
  if(MOR_NATIVE)
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-march=native>")
  endif()
endfunction()
