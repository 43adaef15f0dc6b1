# SPDX-License-Identifier: Apache-2.0
# install: headers, the CMake package `mor` (target mor::mor), a pkg-config file and the licence.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(mor_package_dir "${CMAKE_INSTALL_DATADIR}/cmake/mor")  # share/: nothing here depends on the architecture

install(DIRECTORY include/mor DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" FILES_MATCHING PATTERN "*.hpp" PATTERN "*.cuh")
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/mor")
install(TARGETS mor EXPORT mor-exports INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT mor-exports NAMESPACE mor:: DESTINATION "${mor_package_dir}")

configure_package_config_file(cmake/mor-config.cmake.in mor-config.cmake INSTALL_DESTINATION "${mor_package_dir}")
write_basic_package_version_file(mor-config-version.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES
  "${CMAKE_CURRENT_BINARY_DIR}/mor-config.cmake"
  "${CMAKE_CURRENT_BINARY_DIR}/mor-config-version.cmake"
  cmake/mor-targets.cmake
  DESTINATION "${mor_package_dir}")

set(mor_openmp_flags "")
if(TARGET OpenMP::OpenMP_CXX)
  set(mor_openmp_flags "${OpenMP_CXX_FLAGS}")  # compiling and linking
endif()
configure_file(cmake/mor.pc.in mor.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/mor.pc" DESTINATION "${CMAKE_INSTALL_DATADIR}/pkgconfig")
