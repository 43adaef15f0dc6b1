# SPDX-License-Identifier: Apache-2.0
# What tests, examples and benchmarks have in common. Never applied to a target that users link.

# Options of our own programs: warnings as errors, and this machine's instructions.
function(mor_configure_program target)
  if(MOR_WARNINGS)
    # g++ 12 warns of an overlap inside std::string's operator+ (GCC bug 105651), whoever calls it.
    set(old_gcc "$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>")
    target_compile_options(${target} PRIVATE
      "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wconversion;-Werror;$<${old_gcc}:-Wno-restrict>>"
      "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-Werror,-Wno-restrict>")
  endif()
  if(MOR_NATIVE)
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-march=native>")
  endif()
endfunction()
