// SPDX-License-Identifier: Apache-2.0
#include "io/safetensors_cases.hpp"
#include "support/catch.hpp"

#include <string>
#include <vector>

using namespace mor::test;
using mor::ErrorCode;

namespace {

std::string const element_types =
    "F64, F32, F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8, BOOL, F8_E4M3, F8_E5M2, F8_E8M0, F8_E4M3FNUZ, "
    "F8_E5M2FNUZ, C64";

std::vector<MalformedSafetensors> const malformed{
    {"S6", file_of(one("5", "[0]", "[0,0]")),
     R"(byte 22: tensor "t": dtype is not as the format demands (expected ", got "5,\"shape\":[0],\"data_..."))"},
    {"S6", file_of(one("null", "[0]", "[0,0]")),
     R"(byte 22: tensor "t": dtype is not as the format demands (expected ", got "null,\"shape\":[0],\"da..."))"},
    {"S6", file_of(one("[\"U8\"]", "[0]", "[0,0]")),
     R"(byte 22: tensor "t": dtype is not as the format demands (expected ", got "[\"U8\"],\"shape\":[0],\"..."))"},
    {"S6", file_of(one("\"U8\"", "0", "[0,0]")),
     R"(byte 35: tensor "t": shape is not as the format demands (expected [, got "0,\"data_offsets\":[0,..."))"},
    {"S6", file_of(one("\"U8\"", "null", "[0,0]")),
     R"(byte 35: tensor "t": shape is not as the format demands (expected [, got "null,\"data_offsets\":..."))"},
    {"S6", file_of(one("\"U8\"", "\"[0]\"", "[0,0]")),
     R"(byte 35: tensor "t": shape is not as the format demands (expected [, got "\"[0]\",\"data_offsets\"..."))"},
    {"S6", file_of(one("\"U8\"", "{}", "[0,0]")),
     R"(byte 35: tensor "t": shape is not as the format demands (expected [, got "{},\"data_offsets\":[0..."))"},
    {"S6", file_of(one("\"U8\"", "[0,]", "[0,0]")),
     R"(byte 38: tensor "t": a dimension of the shape is not a whole number (expected digits, got "],\"data_offse)"
     R"(ts\":[0,..."))"},
    {"S6", file_of(one("\"U8\"", "[,0]", "[0,0]")),
     R"(byte 36: tensor "t": a dimension of the shape is not a whole number (expected digits, got ",0],\"data_off)"
     R"(sets\":[..."))"},
    {"S6", file_of(one("\"U8\"", "[0 0]", "[0,0]")),
     R"(byte 38: tensor "t": shape is not as the format demands (expected ,, got "0],\"data_offsets\":[0..."))"},
    {"S6", file_of(one("\"U8\"", "[[0]]", "[0,0]")),
     R"(byte 36: tensor "t": a dimension of the shape is not a whole number (expected digits, got "[0]],\"data_of)"
     R"(fsets\":..."))"},
    {"S6", file_of(one("\"U8\"", "[0", "[0,0]")),
     R"(byte 38: tensor "t": a dimension of the shape is not a whole number (expected digits, got "\"data_offsets)"
     R"(\":[0,0]..."))"},
    {"S6", file_of(one("\"U8\"", "[0]", "[]")),
     R"(byte 55: tensor "t": the first data offset is not a whole number (expected digits, got "]}}"))"},
    {"S6", file_of(one("\"U8\"", "[0]", "[0]")),
     R"(byte 56: tensor "t": data_offsets is not as the format demands (expected ,, got "]}}"))"},
    {"S6", file_of(one("\"U8\"", "[0]", "[0,0,0]")),
     R"(byte 58: tensor "t": data_offsets is not as the format demands (expected ], got ",0]}}"))"},
    {"S6", file_of(one("\"U8\"", "[0]", "{\"a\":0}")),
     R"(byte 54: tensor "t": data_offsets is not as the format demands (expected [, got "{\"a\":0}}}"))"},
    {"S6", file_of(one("\"U8\"", "[0]", "\"0,0\"")),
     R"(byte 54: tensor "t": data_offsets is not as the format demands (expected [, got "\"0,0\"}}"))"},
    {"S6", file_of(one("\"U8\"", "[-1]", "[0,1]"), 1),
     R"(byte 36: tensor "t": a dimension of the shape is not a whole number (expected digits, got "-1],\"data_off)"
     R"(sets\":[..."))"},
    {"S6", file_of(one("\"U8\"", "[+1]", "[0,1]"), 1),
     R"(byte 36: tensor "t": a dimension of the shape is not a whole number (expected digits, got "+1],\"data_off)"
     R"(sets\":[..."))"},
    {"S6", file_of(one("\"U8\"", "[1.0]", "[0,1]"), 1),
     R"(byte 36: tensor "t": a dimension of the shape is not a whole number (expected digits, got "1.0],\"data_of)"
     R"(fsets\":..."))"},
    {"S6", file_of(one("\"U8\"", "[1e0]", "[0,1]"), 1),
     R"(byte 36: tensor "t": a dimension of the shape is not a whole number (expected digits, got "1e0],\"data_of)"
     R"(fsets\":..."))"},
    {"S6", file_of(one("\"U8\"", "[1E0]", "[0,1]"), 1),
     R"(byte 36: tensor "t": a dimension of the shape is not a whole number (expected digits, got "1E0],\"data_of)"
     R"(fsets\":..."))"},
    {"S6", file_of(one("\"U8\"", "[01]", "[0,1]"), 1),
     R"(byte 36: tensor "t": a dimension of the shape is not a whole number (expected digits, got "01],\"data_off)"
     R"(sets\":[..."))"},
    {"S6", file_of(one("\"U8\"", "[0x1]", "[0,1]"), 1),
     R"(byte 37: tensor "t": shape is not as the format demands (expected ,, got "x1],\"data_offsets\":[..."))"},
    {"S6", file_of(one("\"U8\"", "[\"1\"]", "[0,1]"), 1),
     R"(byte 36: tensor "t": a dimension of the shape is not a whole number (expected digits, got "\"1\"],\"data_)"
     R"(offsets\":..."))"},
    {"S6", file_of(one("\"U8\"", "[null]", "[0,1]"), 1),
     R"(byte 36: tensor "t": a dimension of the shape is not a whole number (expected digits, got "null],\"data_o)"
     R"(ffsets\"..."))"},
    {"S6", file_of(one("\"U8\"", "[true]", "[0,1]"), 1),
     R"(byte 36: tensor "t": a dimension of the shape is not a whole number (expected digits, got "true],\"data_o)"
     R"(ffsets\"..."))"},
    {"S6", file_of(one("\"U8\"", "[NaN]", "[0,1]"), 1),
     R"(byte 36: tensor "t": a dimension of the shape is not a whole number (expected digits, got "NaN],\"data_of)"
     R"(fsets\":..."))"},
    {"S6", file_of(one("\"U8\"", "[-0]", "[0,1]"), 1),
     R"(byte 36: tensor "t": a dimension of the shape is not a whole number (expected digits, got "-0],\"data_off)"
     R"(sets\":[..."))"},
    {"S6", file_of(one("\"U8\"", "[1]", "[0,-1]"), 1),
     R"(byte 57: tensor "t": the second data offset is not a whole number (expected digits, got "-1]}}"))"},
    {"S6", file_of(one("\"U8\"", "[1]", "[0,1.0]"), 1),
     R"(byte 57: tensor "t": the second data offset is not a whole number (expected digits, got "1.0]}}"))"},
    {"S6", file_of(one("\"U8\"", "[1]", "[0,1e0]"), 1),
     R"(byte 57: tensor "t": the second data offset is not a whole number (expected digits, got "1e0]}}"))"},
    {"S6", file_of(one("\"U8\"", "[1]", "[0,01]"), 1),
     R"(byte 57: tensor "t": the second data offset is not a whole number (expected digits, got "01]}}"))"},
    {"S6", file_of(one("\"U8\"", "[1]", "[0,\"1\"]"), 1),
     R"(byte 57: tensor "t": the second data offset is not a whole number (expected digits, got "\"1\"]}}"))"},
    {"S6", file_of(one("\"U8\"", "[1]", "[0,null]"), 1),
     R"(byte 57: tensor "t": the second data offset is not a whole number (expected digits, got "null]}}"))"},
    {"S6", file_of(one("\"U8\"", "[1]", "[0,Infinity]"), 1),
     R"(byte 57: tensor "t": the second data offset is not a whole number (expected digits, got "Infinity]}}"))"},
    {"S6", file_of(one("\"U8\"", "[1]", "[-1,1]"), 1),
     R"(byte 55: tensor "t": the first data offset is not a whole number (expected digits, got "-1,1]}}"))"},
    {"S6", file_of(one("\"U8\"", "[1]", "[0.0,1]"), 1),
     R"(byte 55: tensor "t": the first data offset is not a whole number (expected digits, got "0.0,1]}}"))"},
    {"S6", file_of(one("\"U8\"", "[1]", "[00,1]"), 1),
     R"(byte 55: tensor "t": the first data offset is not a whole number (expected digits, got "00,1]}}"))"},
    {"S6", file_of(one("\"U8\"", "[1]", "[null,1]"), 1),
     R"(byte 55: tensor "t": the first data offset is not a whole number (expected digits, got "null,1]}}"))"},
    {"S7", file_of("{\"__metadata__\":{\"a\":1}}"),
     R"(byte 29: __metadata__ is not as the format demands (expected ", got "1}}"))"},
    {"S7", file_of("{\"__metadata__\":{\"a\":null}}"),
     R"(byte 29: __metadata__ is not as the format demands (expected ", got "null}}"))"},
    {"S7", file_of("{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}"),
     R"(byte 29: __metadata__ is not as the format demands (expected ", got "{\"b\":\"c\"}}}"))"},
    {"S7", file_of("{\"__metadata__\":{\"a\":[\"b\"]}}"),
     R"(byte 29: __metadata__ is not as the format demands (expected ", got "[\"b\"]}}"))"},
    {"S7", file_of("{\"__metadata__\":{\"a\":true}}"),
     R"(byte 29: __metadata__ is not as the format demands (expected ", got "true}}"))"},
    {"S7", file_of("{\"__metadata__\":{\"a\":\"1\",\"\\u0061\":\"2\"}}"),
     R"(byte 33: __metadata__ repeats a key (got "a"))"},
    {"S7", file_of("{\"__metadata__\":null}"),
     R"(byte 24: __metadata__ is not as the format demands (expected {, got "null}"))"},
    {"S7", file_of("{\"__metadata__\":[]}"),
     R"(byte 24: __metadata__ is not as the format demands (expected {, got "[]}"))"},
    {"S7", file_of("{\"__metadata__\":\"x\"}"),
     R"(byte 24: __metadata__ is not as the format demands (expected {, got "\"x\"}"))"},
    {"S7", file_of("{\"__metadata__\":{\"a\":\"b\"}"),
     "byte 33: the header is not as the format demands (expected ,, got the end of the header)"},
    {"S7", file_of("{\"__metadata__\":{\"a\"}}"),
     R"(byte 28: __metadata__ is not as the format demands (expected :, got "}}"))"},
    {"S7", file_of("{\"__metadata__\":{},\"__metadata__\":{}}"), "byte 27: the header repeats __metadata__"},
    {"S7", file_of("{\"__metadata__\":{\"a\":\"" + std::string(1048576, 'x') + "\"}}"),
     "byte 25: __metadata__ is too large (expected at most 1048576 bytes, got more)"},
    {"S7", file_of("{\"__metadata__\":{\"a\":\"" + std::string(1048577, 'x') + "\"}}"),
     "byte 29: a string in __metadata__ is too long (expected at most 1048576 bytes, got more)"},
    {"S7", file_of("{\"__metadata__\":{\"" + std::string(1048577, 'k') + "\":\"\"}}"),
     "byte 25: a string in __metadata__ is too long (expected at most 1048576 bytes, got more)"},
    {"S8", file_of(one("\"F31\"", "[0]", "[0,0]")),
     std::string(R"(byte 22: tensor "t": unknown element type (expected )") + element_types + R"(, got "F31"))"},
    {"S8", file_of(one("\"f32\"", "[0]", "[0,0]")),
     std::string(R"(byte 22: tensor "t": unknown element type (expected )") + element_types + R"(, got "f32"))"},
    {"S8", file_of(one("\"\"", "[0]", "[0,0]")),
     std::string(R"(byte 22: tensor "t": unknown element type (expected )") + element_types + R"(, got ""))"},
    {"S8", file_of(one("\"BOOLEAN\"", "[0]", "[0,0]")),
     std::string(R"(byte 22: tensor "t": unknown element type (expected )") + element_types + R"(, got "BOOLEAN"))"},
    {"S8", file_of(one("\"F32 \"", "[0]", "[0,0]")),
     std::string(R"(byte 22: tensor "t": unknown element type (expected )") + element_types + R"(, got "F32 "))"},
    {"S8", file_of(one("\"F4\"", "[0]", "[0,0]")),
     std::string(R"(byte 22: tensor "t": element type not supported (expected )") + element_types + R"(, got "F4"))",
     ErrorCode::Unsupported},
    {"S8", file_of(one("\"F6_E2M3\"", "[0]", "[0,0]")),
     std::string(R"(byte 22: tensor "t": element type not supported (expected )") + element_types +
         R"(, got "F6_E2M3"))",
     ErrorCode::Unsupported},
    {"S8", file_of(one("\"F6_E3M2\"", "[0]", "[0,0]")),
     std::string(R"(byte 22: tensor "t": element type not supported (expected )") + element_types +
         R"(, got "F6_E3M2"))",
     ErrorCode::Unsupported},
    {"S8", file_of(one("\"" + std::string(65, 'U') + "\"", "[0]", "[0,0]")),
     R"(byte 22: tensor "t": a string in dtype is too long (expected at most 64 bytes, got more))"},
    {"S9", file_of(one("\"U8\"", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1),
     R"(byte 52: tensor "t": too many dimensions (expected at most 8, got more))"},
    {"S9", file_of(one("\"U8\"", "[4294967296,4294967296]", "[0,0]")),
     R"(byte 9: tensor "t": the shape's size exceeds 64 bits (got U8 of shape [4294967296, 4294967296]))"},
    {"S9", file_of(one("\"F64\"", "[2305843009213693952]", "[0,0]")),
     R"(byte 9: tensor "t": the shape's size exceeds 64 bits (got F64 of shape [2305843009213693952]))"},
    {"S9", file_of(one("\"U8\"", "[4294967296,4294967296,0]", "[0,0]")),
     R"(byte 9: tensor "t": the shape's size exceeds 64 bits (got U8 of shape [4294967296, 4294967296, 0]))"},
    {"S9", file_of(one("\"U8\"", "[9223372036854775808]", "[0,0]")),
     R"(byte 36: tensor "t": a dimension of the shape is out of range (expected at most 9223372036854775807, got )"
     R"("9223372036854775808"))"},
    {"S9", file_of(one("\"U8\"", "[99999999999999999999999]", "[0,0]")),
     R"(byte 36: tensor "t": a dimension of the shape is out of range (expected at most 9223372036854775807, got )"
     R"("99999999999999999999999"))"},
    {"S9", file_of(one("\"U8\"", "[1]", "[0,9223372036854775808]"), 1),
     R"(byte 57: tensor "t": the second data offset is out of range (expected at most 9223372036854775807, got "9)"
     R"(223372036854775808"))"},
    {"S9", file_of(one("\"U8\"", "[18446744073709551616]", "[0,0]")),
     R"(byte 36: tensor "t": a dimension of the shape is out of range (expected at most 9223372036854775807, got )"
     R"("18446744073709551616"))"},
    {"S10", file_of(one("\"F32\"", "[2]", "[0,4]"), 4),
     R"(byte 9: tensor "t": data_offsets do not span the shape (expected 8 bytes for F32 of shape [2], got 4 byte)"
     "s, [0, 4])"},
    {"S10", file_of(one("\"F32\"", "[1]", "[0,8]"), 8),
     R"(byte 9: tensor "t": data_offsets do not span the shape (expected 4 bytes for F32 of shape [1], got 8 byte)"
     "s, [0, 8])"},
    {"S10", file_of(one("\"F32\"", "[]", "[0,0]")),
     R"(byte 9: tensor "t": data_offsets do not span the shape (expected 4 bytes for F32 of shape [], got 0 bytes)"
     ", [0, 0])"},
    {"S10", file_of(one("\"BF16\"", "[3]", "[0,5]"), 5),
     R"(byte 9: tensor "t": data_offsets do not span the shape (expected 6 bytes for BF16 of shape [3], got 5 byt)"
     "es, [0, 5])"},
    {"S10", file_of(one("\"U8\"", "[0]", "[0,1]"), 1),
     R"(byte 9: tensor "t": data_offsets do not span the shape (expected 0 bytes for U8 of shape [0], got 1 bytes)"
     ", [0, 1])"},
    {"S10", file_of(one("\"F8_E4M3\"", "[4]", "[0,8]"), 8),
     R"(byte 9: tensor "t": data_offsets do not span the shape (expected 4 bytes for F8_E4M3 of shape [4], got 8 )"
     "bytes, [0, 8])"},
    {"S10", file_of(one("\"U16\"", "[4]", "[0,4]"), 4),
     R"(byte 9: tensor "t": data_offsets do not span the shape (expected 8 bytes for U16 of shape [4], got 4 byte)"
     "s, [0, 4])"},
    {"S10", file_of(one("\"U64\"", "[4]", "[0,16]"), 16),
     R"(byte 9: tensor "t": data_offsets do not span the shape (expected 32 bytes for U64 of shape [4], got 16 by)"
     "tes, [0, 16])"},
    {"S10", file_of(one("\"F32\"", "[1]", "[4,0]"), 4),
     R"(byte 9: tensor "t": data_offsets run backwards (expected begin <= end, got [4, 0]))"},
    {"S11", file_of(one("\"F32\"", "[1]", "[0,4]"), 3),
     R"(byte 9: tensor "t": data_offsets lie beyond the end of the file (expected at most 3 bytes of data, got [0)"
     ", 4])"},
    {"S11", file_of(one("\"F32\"", "[1]", "[0,4]"), 5),
     "byte 66: bytes after the last tensor (expected 4 bytes of data, got 5)"},
    {"S11", file_of("{}", 1), "byte 10: bytes after the last tensor (expected 0 bytes of data, got 1)"},
    {"S11", file_of(one("\"F32\"", "[1]", "[1,5]"), 5),
     R"(byte 9: tensor "t": hole before the data (expected begin at 0, got 1))"},
    {"S11", file_of(one("\"U8\"", "[1]", "[9223372036854775806,9223372036854775807]"), 1),
     R"(byte 9: tensor "t": data_offsets lie beyond the end of the file (expected at most 1 bytes of data, got [9)"
     "223372036854775806, 9223372036854775807])"},
    {"S11", file_of("{" + tensor("a", 0, 2) + "," + tensor("b", 1, 3) + "}", 3),
     R"(byte 61: tensor "b": data overlaps another tensor's (expected begin at 2, got 1))"},
    {"S11", file_of("{" + tensor("a", 0, 2) + "," + tensor("b", 0, 2) + "}", 2),
     R"(byte 61: tensor "b": data overlaps another tensor's (expected begin at 2, got 0))"},
    {"S11", file_of("{" + tensor("a", 0, 2) + "," + tensor("b", 3, 4) + "}", 4),
     R"(byte 61: tensor "b": hole before the data (expected begin at 2, got 3))"},
    {"S11", file_of("{" + tensor("a", 0, 4) + "," + tensor("b", 2, 2) + "}", 4),
     R"(byte 61: tensor "b": data overlaps another tensor's (expected begin at 4, got 2))"},
    {"S11", file_of("{" + tensor("a", 0, 1) + "," + tensor("b", 1, 2) + "}", 3),
     "byte 115: bytes after the last tensor (expected 2 bytes of data, got 3)"},
    {"S11", file_of("{" + tensor("b", 2, 3) + "," + tensor("a", 1, 2) + "}", 3),
     R"(byte 61: tensor "a": hole before the data (expected begin at 0, got 1))"},
    {"S12", file_of("{" + tensor(std::string(1025, 'n'), 0, 1) + "}", 1),
     "byte 9: a string in the header is too long (expected at most 1024 bytes, got more)"},
    {"S12", file_of("{" + tensor("a\\u0000b", 0, 1) + "}", 1),
     R"(byte 9: a tensor's name holds a NUL character (got "a\x00b"))"},
};

}  // namespace

TEST_CASE("a file whose tensors are not as the format demands is refused with an error of its own") {
  REQUIRE(malformed.size() >= 80);
  check_refusals(malformed);
}
