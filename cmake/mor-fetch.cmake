# SPDX-License-Identifier: Apache-2.0
# Dependencies: the installed package first, the upstream release where none is installed and MOR_FETCH_DEPENDENCIES is on.
include(FetchContent)

# mor_declare(NAME PACKAGE_ARGUMENTS REPOSITORY TAG [more arguments of FetchContent_Declare])
function(mor_declare name package_arguments repository tag)
  FetchContent_Declare(${name}
    GIT_REPOSITORY "${repository}"
    GIT_TAG "${tag}"
    GIT_SHALLOW ON
    ${ARGN}
    FIND_PACKAGE_ARGS ${package_arguments})
endfunction()

mor_declare(nlohmann_json "3.10;CONFIG" https://github.com/nlohmann/json.git v3.11.3)
mor_declare(CLI11 "2.1;CONFIG" https://github.com/CLIUtils/CLI11.git v2.4.2)
mor_declare(Catch2 "3;CONFIG" https://github.com/catchorg/Catch2.git v3.7.1)
mor_declare(benchmark "1.6;CONFIG" https://github.com/google/benchmark.git v1.9.0)
mor_declare(httplib "CONFIG" https://github.com/yhirose/cpp-httplib.git v0.53.1)

# Makes the dependency `name` available, downloading it where that is allowed; `${target}` exists afterwards or not.
macro(mor_provide name target)
  if(NOT TARGET ${target})
    if(MOR_FETCH_DEPENDENCIES)
      FetchContent_MakeAvailable(${name})
    else()
      find_package(${name} QUIET CONFIG)
    endif()
  endif()
endmacro()

macro(mor_fetch_library_dependencies)
  mor_provide(nlohmann_json nlohmann_json::nlohmann_json)
endmacro()

# Catch2: an installed version 3, else an installed version 2, else a download. Sets mor_catch_major to 2 or 3.
macro(mor_provide_catch)
  set(mor_catch_major 3)
  find_package(Catch2 3 QUIET CONFIG)
  if(NOT Catch2_FOUND)
    find_package(Catch2 2.13 QUIET CONFIG)
    if(Catch2_FOUND)
      set(mor_catch_major 2)
    else()
      mor_provide(Catch2 Catch2::Catch2WithMain)
      if(NOT TARGET Catch2::Catch2WithMain)
        message(FATAL_ERROR "The tests need Catch2: install it (Debian: catch2), allow downloads with -DMOR_FETCH_DEPENDENCIES=ON, or configure with -DMOR_BUILD_TESTS=OFF")
      endif()
    endif()
  endif()
endmacro()

# cpp-httplib, for the server: installed with a CMake package, or as Debian has it with pkg-config only, else a download.
macro(mor_provide_httplib)
  find_package(httplib QUIET CONFIG)
  if(NOT TARGET httplib::httplib)
    find_package(PkgConfig QUIET)
    if(PkgConfig_FOUND)
      pkg_check_modules(mor_httplib QUIET IMPORTED_TARGET GLOBAL "cpp-httplib>=0.11")
    endif()
    if(TARGET PkgConfig::mor_httplib)
      add_library(httplib::httplib ALIAS PkgConfig::mor_httplib)
    else()
      # Plain HTTP, nothing compressed: a proxy does that better.
      foreach(feature USE_OPENSSL_IF_AVAILABLE USE_ZLIB_IF_AVAILABLE USE_BROTLI_IF_AVAILABLE USE_ZSTD_IF_AVAILABLE INSTALL)
        set(HTTPLIB_${feature} OFF CACHE INTERNAL "")
      endforeach()
      mor_provide(httplib httplib::httplib)
    endif()
  endif()
endmacro()
