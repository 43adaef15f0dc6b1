// SPDX-License-Identifier: Apache-2.0
#include "io/safetensors_cases.hpp"
#include "support/catch.hpp"

#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <vector>

using namespace mor::test;
using mor::DType;
using mor::ErrorCode;
using mor::io::FileAccess;
using mor::io::read_file;
using mor::io::SafetensorsFile;
using mor::io::TensorToWrite;
using mor::io::write_file;
using mor::io::write_safetensors;

TEST_CASE("odd but valid files are accepted") {
  struct Odd {
    char const* what;
    std::string bytes;
    std::size_t tensors;
  };
  std::string const two = tensor("a", 0, 2) + "," + tensor("b", 2, 3);
  std::vector<Odd> const files{
      {"no tensors", file_of("{}"), 0},
      {"white space around the header", file_of("\t\n {} \r\n"), 0},
      {"a padded header", file_of("{}" + std::string(4094, ' ')), 0},
      {"a header of odd length", file_of("{" + two + "} ", 3), 2},
      {"white space inside",
       file_of("{ \"t\" : { \"data_offsets\" : [ 0 , 2 ] , \"shape\" : [ 2 ] , \"dtype\" : \"U8\" } }", 2), 1},
      {"line breaks inside", file_of("{\n\t" + tensor("a", 0, 2) + "\r\n,\n" + tensor("b", 2, 3) + "\n}\n", 3), 2},
      {"tensors in another order than their data", file_of("{" + tensor("b", 2, 3) + "," + tensor("a", 0, 2) + "}", 3),
       2},
      {"a name that is empty", file_of("{" + tensor("", 0, 1) + "}", 1), 1},
      {"a name that is a path", file_of("{" + tensor("../../etc/passwd", 0, 1) + "}", 1), 1},
      {"a name with escapes", file_of("{" + tensor("\\\"\\\\\\/\\b\\f\\n\\r\\t", 0, 1) + "}", 1), 1},
      {"a name in escapes beyond the basic plane", file_of("{" + tensor("\\ud83d\\ude00", 0, 1) + "}", 1), 1},
      {"a name in UTF-8", file_of("{" + tensor("\xE2\x82\xAC\xF0\x9F\x98\x80", 0, 1) + "}", 1), 1},
      {"a name that looks like metadata", file_of("{" + tensor("__metadata_", 0, 1) + "}", 1), 1},
      {"names that differ in case", file_of("{" + tensor("a", 0, 1) + "," + tensor("A", 1, 2) + "}", 2), 2},
      {"an escaped key", file_of(R"({"t":{"\u0064type":"U8","shape":[1],"data_offsets":[0,1]}})", 1), 1},
      {"empty tensors at the end",
       file_of("{" + tensor("a", 0, 2) + "," + tensor("b", 2, 2) + "," + tensor("c", 2, 2) + "}", 2), 3},
      {"empty tensors at the beginning", file_of("{" + tensor("a", 0, 0) + "," + tensor("b", 0, 2) + "}", 2), 2},
      {"a scalar", file_of(one("\"F64\"", "[]", "[0,8]"), 8), 1},
      {"a dimension of zero beside large ones", file_of(one("\"F64\"", "[1000000,0,1000000]", "[0,0]")), 1},
      {"zeros in the middle of eight dimensions", file_of(one("\"U8\"", "[1,2,0,3,1,1,1,1]", "[0,0]")), 1},
      {"data that is not aligned for its type",
       file_of("{" + tensor("a", 0, 1) + R"(,"f":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})", 5), 2},
      {"metadata alone", file_of(R"({"__metadata__":{"format":"pt","":""}})"), 0},
      {"metadata that is empty", file_of(R"({"__metadata__":{}})"), 0},
      {"metadata after the tensors", file_of("{" + two + R"(,"__metadata__":{"a":"{\"b\":1}"}})", 3), 2},
      {"metadata that holds a NUL", file_of(R"({"__metadata__":{"a\u0000":"\u0000"}})"), 0},
      {"eight-bit floats", file_of(one("\"F8_E4M3\"", "[3]", "[0,3]"), 3), 1},
      {"other eight-bit floats", file_of(one("\"F8_E5M2FNUZ\"", "[3]", "[0,3]"), 3), 1},
      {"scales of eight bits", file_of(one("\"F8_E8M0\"", "[3]", "[0,3]"), 3), 1},
      {"complex numbers", file_of(one("\"C64\"", "[2]", "[0,16]"), 16), 1},
      {"unsigned integers", file_of(one("\"U64\"", "[2]", "[0,16]"), 16), 1}};
  TemporaryFolder const folder;
  for (Odd const& odd : files) {
    CAPTURE(odd.what);
    write_file(folder / "file", odd.bytes);
    for (FileAccess const access : {FileAccess::Map, FileAccess::Read}) {
      REQUIRE(SafetensorsFile::open(folder / "file", access).entries().size() == odd.tensors);
    }
  }
  write_file(folder / "file", file_of("{" + tensor("\\ud83d\\ude00", 0, 1) + "}", 1));
  REQUIRE(SafetensorsFile::open(folder / "file").contains("\xF0\x9F\x98\x80"));
}

TEST_CASE("every element type is written, read and written again as the same bytes; raw types are not converted") {
  TemporaryFolder const folder;
  std::vector<std::uint8_t> data(48);
  std::iota(data.begin(), data.end(), std::uint8_t{1});
  std::vector<TensorToWrite> tensors;
  for (mor::DTypeFacts const& facts : mor::dtype_facts) {
    auto const bytes =
        std::as_bytes(std::span<std::uint8_t const>(data)).first(static_cast<std::size_t>(6 * facts.bytes));
    tensors.push_back({"t_" + std::string(facts.name), facts.dtype, {2, 3}, bytes});
  }
  write_safetensors(folder / "first", tensors, {{"b", "2"}, {"a", "1"}});
  auto const file = SafetensorsFile::open(folder / "first");
  REQUIRE(file.entries().size() == mor::dtype_facts.size());
  std::vector<TensorToWrite> again;
  for (auto const& entry : file.entries()) {
    again.push_back({entry.name, entry.info.dtype, entry.info.shape, file.bytes(entry.name)});
  }
  write_safetensors(folder / "second", again, file.metadata());
  REQUIRE(read_file(folder / "first") == read_file(folder / "second"));
  std::vector<float> six(6);
  for (char const* raw : {"F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64", "BOOL", "U32"}) {
    REQUIRE(fails_with(
        ErrorCode::ShapeMismatch, [&] { file.read_float32(std::string("t_") + raw, six); }, "F64, F32, F16 or BF16",
        raw));
  }
  std::vector<std::int64_t> integers(6);
  file.read_int64("t_U16", integers);
  REQUIRE(integers[0] == 0x0201);
  file.read_int64("t_U32", integers);
  REQUIRE(integers[1] == 0x08070605);
  std::vector<float> part(2);
  REQUIRE(fails_with(
      ErrorCode::ShapeMismatch, [&] { file.read_float32_part("t_F32", 5, part); }, "6 elements", "2 from 5 on"));
}
