// SPDX-License-Identifier: Apache-2.0
#include "mor/io/file.hpp"
#include "mor/io/mapped_file.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/temporary_folder.hpp"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>

using mor::ErrorCode;
using mor::io::FileWriter;
using mor::io::read_file;
using mor::io::write_file;
using mor::io::WriteMode;
using mor::test::fails_with;
using mor::test::TemporaryFolder;

TEST_CASE("a file is read back byte for byte, whatever its size and content") {
  TemporaryFolder const folder;
  for (std::size_t const size : {0UL, 1UL, 4095UL, 4096UL, 4097UL, 300000UL}) {
    std::string text(size, '\0');
    for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 7 % 256);
    write_file(folder / "file", text);
    REQUIRE(read_file(folder / "file") == text);
  }
}

TEST_CASE("a file whose size the system does not tell is read to its end") {
  REQUIRE(read_file("/proc/self/status").size() > 100);
}

TEST_CASE("replacing a file leaves no temporary file behind and keeps the umask's permissions") {
  TemporaryFolder const folder;
  write_file(folder / "file", "old");
  write_file(folder / "file", "new");
  REQUIRE(read_file(folder / "file") == "new");
  REQUIRE(folder.count() == 1);
  mode_t const mask = ::umask(0);
  ::umask(mask);
  struct stat status {};
  REQUIRE(::stat((folder / "file").c_str(), &status) == 0);
  REQUIRE((status.st_mode & 0777) == (0666 & ~mask));
}

TEST_CASE("a writer that is not committed leaves the old file and no trace") {
  TemporaryFolder const folder;
  write_file(folder / "file", "old");
  {
    FileWriter writer(folder / "file");
    writer.write("half of the new");
  }
  REQUIRE(read_file(folder / "file") == "old");
  REQUIRE(folder.count() == 1);
}

TEST_CASE("writing in place creates the target itself and truncates an older one") {
  TemporaryFolder const folder;
  write_file(folder / "file", "a long old content");
  FileWriter writer(folder / "file", WriteMode::InPlace);
  writer.write("new");
  REQUIRE(folder.count() == 1);
  writer.commit();
  REQUIRE(read_file(folder / "file") == "new");
}

TEST_CASE("a name relative to the current folder works") {
  TemporaryFolder const folder;
  auto const before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  write_file("file", "text");
  std::string const text = read_file("file");
  std::filesystem::current_path(before);
  REQUIRE(text == "text");
}

TEST_CASE("failures of the system name the path and the reason") {
  TemporaryFolder const folder;
  auto const missing = folder / "missing";
  REQUIRE(fails_with(
      ErrorCode::IoFailure, [&] { (void)read_file(missing); }, missing.string(), "No such file"));
  REQUIRE(fails_with(
      ErrorCode::IoFailure, [&] { (void)read_file(folder.path()); }, "not a regular file"));
  REQUIRE(fails_with(
      ErrorCode::IoFailure, [&] { write_file(missing / "file", "x"); }, missing.string(), "No such file"));
  REQUIRE(fails_with(
      ErrorCode::IoFailure, [&] { write_file(folder.path(), "x"); }, "not a regular file"));
  REQUIRE(fails_with(
      ErrorCode::IoFailure, [&] { write_file("/dev/null", "x"); }, "not a regular file"));
  REQUIRE(fails_with(
      ErrorCode::IoFailure, [&] { mor::io::MappedFile const file(missing); }, missing.string()));
}

TEST_CASE("a full disk is an error, and the old file survives it") {
  TemporaryFolder const folder;
  write_file(folder / "file", "old");
  // A limit on the size of files fails the same way as a full disk, after a short write. In a child, for it is global.
  pid_t const child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    rlimit const limit{1000, 1000};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(2);
    bool const refused = fails_with(
        ErrorCode::IoFailure, [&] { write_file(folder / "file", std::string(5000, 'x')); }, "cannot write",
        "File too large");
    ::_exit(refused ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  REQUIRE(WEXITSTATUS(status) == 0);
  REQUIRE(read_file(folder / "file") == "old");
  REQUIRE(folder.count() == 1);
}

TEST_CASE("a process killed while it writes leaves the old or the new file, whole") {
  TemporaryFolder const folder;
  std::string const old_text(200000, 'o'), new_text(300000, 'n');
  write_file(folder / "file", old_text);
  for (int round = 0; round < 12; ++round) {
    pid_t const child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (;;) {
        write_file(folder / "file", new_text);
        write_file(folder / "file", old_text);
      }
    }
    ::usleep(static_cast<useconds_t>(2000 + 1700 * round));
    REQUIRE(::kill(child, SIGKILL) == 0);
    REQUIRE(::waitpid(child, nullptr, 0) == child);
    std::string const text = read_file(folder / "file");
    REQUIRE((text == old_text || text == new_text));
  }
}

TEST_CASE("descriptors close with their owner") {
  int number = -1;
  {
    auto file = mor::io::open_file("/proc/self/status", O_RDONLY);
    number = file.get();
    auto moved = std::move(file);
    REQUIRE(moved.get() == number);
    REQUIRE(::fcntl(number, F_GETFD) >= 0);
  }
  REQUIRE(::fcntl(number, F_GETFD) == -1);
}

TEST_CASE("a mapped file shows its bytes, and an empty one none") {
  TemporaryFolder const folder;
  write_file(folder / "file", "abc");
  write_file(folder / "empty", "");
  mor::io::MappedFile file(folder / "file");
  mor::io::MappedFile const moved = std::move(file);
  REQUIRE(moved.bytes().size() == 3);
  REQUIRE(moved.bytes()[1] == std::byte{'b'});
  REQUIRE(mor::io::MappedFile(folder / "empty").bytes().empty());
}
