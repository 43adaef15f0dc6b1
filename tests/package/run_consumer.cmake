# SPDX-License-Identifier: Apache-2.0
# Builds and runs a program that uses the library in one way, as a project of its own.
# usage: cmake -DWAY=find_package|add_subdirectory|fetch_content|include_path|pkg_config -DMOR_SOURCE_DIR=... -DMOR_BINARY_DIR=...
#              -DWORK_DIR=... -DCXX=... [-DLAUNCHER=ccache] [-DPKG_CONFIG=...] [-DOPENMP=1] -P run_consumer.cmake

function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    list(JOIN ARGV " " command)
    message(FATAL_ERROR "status ${status}: ${command}")
  endif()
endfunction()

set(warnings -Wall -Wextra -Wpedantic -Werror)
set(main "${CMAKE_CURRENT_LIST_DIR}/main.cpp")
set(prefix "${WORK_DIR}/prefix")
file(REMOVE_RECURSE "${WORK_DIR}")
file(MAKE_DIRECTORY "${WORK_DIR}")

if(WAY STREQUAL "find_package" OR WAY STREQUAL "pkg_config")
  run("${CMAKE_COMMAND}" --install "${MOR_BINARY_DIR}" --prefix "${prefix}")
endif()

if(WAY STREQUAL "find_package")
  # The installed tree must stand alone: no file of it may name the folders it was built from.
  file(GLOB_RECURSE installed "${prefix}/share/*")
  foreach(file IN LISTS installed)
    file(READ "${file}" text)
    string(FIND "${text}" "${MOR_SOURCE_DIR}" position)
    if(NOT position EQUAL -1)
      message(FATAL_ERROR "${file} names the source folder ${MOR_SOURCE_DIR}")
    endif()
  endforeach()
endif()

if(WAY STREQUAL "include_path")
  run(${LAUNCHER} "${CXX}" -std=c++20 ${warnings} -I "${MOR_SOURCE_DIR}/include" -c "${main}" -o "${WORK_DIR}/main.o")
  run("${CXX}" "${WORK_DIR}/main.o" -o "${WORK_DIR}/consumer")
elseif(WAY STREQUAL "pkg_config")
  set(ENV{PKG_CONFIG_PATH} "${prefix}/share/pkgconfig")
  run("${PKG_CONFIG}" --exact-version=0.1.0 mor)
  execute_process(COMMAND "${PKG_CONFIG}" --cflags mor OUTPUT_VARIABLE flags OUTPUT_STRIP_TRAILING_WHITESPACE)
  execute_process(COMMAND "${PKG_CONFIG}" --libs mor OUTPUT_VARIABLE libraries OUTPUT_STRIP_TRAILING_WHITESPACE)
  separate_arguments(flags UNIX_COMMAND "${flags}")
  separate_arguments(libraries UNIX_COMMAND "${libraries}")
  if(OPENMP)
    list(APPEND flags -DEXPECT_OPENMP)
  endif()
  run(${LAUNCHER} "${CXX}" -std=c++20 ${warnings} ${flags} -c "${main}" -o "${WORK_DIR}/main.o")
  run("${CXX}" "${WORK_DIR}/main.o" ${libraries} -o "${WORK_DIR}/consumer")
else()
  run("${CMAKE_COMMAND}" -S "${CMAKE_CURRENT_LIST_DIR}/${WAY}" -B "${WORK_DIR}/build" -G "${GENERATOR}"
    "-DCMAKE_CXX_COMPILER=${CXX}" "-DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER}" "-DCMAKE_PREFIX_PATH=${prefix}"
    "-DMOR_SOURCE_DIR=${MOR_SOURCE_DIR}" -DMOR_FETCH_DEPENDENCIES=OFF --no-warn-unused-cli)
  run("${CMAKE_COMMAND}" --build "${WORK_DIR}/build")
  file(RENAME "${WORK_DIR}/build/consumer" "${WORK_DIR}/consumer")
endif()
run("${WORK_DIR}/consumer")
