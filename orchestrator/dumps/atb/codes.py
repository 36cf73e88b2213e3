"""The numbers by which ATB's files tell types and formats: the values of aclDataType and aclFormat."""

DTYPE_NAMES = {
    -1: ("UNDEFINED", ""),
    0: ("FLOAT", "float32"),
    1: ("FLOAT16", "float16"),
    2: ("INT8", "int8"),
    3: ("INT32", "int32"),
    4: ("UINT8", "uint8"),
    6: ("INT16", "int16"),
    7: ("UINT16", "uint16"),
    8: ("UINT32", "uint32"),
    9: ("INT64", "int64"),
    10: ("UINT64", "uint64"),
    11: ("DOUBLE", "float64"),
    12: ("BOOL", "bool"),
    13: ("STRING", ""),
    16: ("COMPLEX64", "complex64"),
    17: ("COMPLEX128", "complex128"),
    27: ("BF16", "bfloat16"),
    29: ("INT4", ""),
    30: ("UINT1", ""),
    33: ("COMPLEX32", "complex32"),
    34: ("HIFLOAT8", ""),
    35: ("FLOAT8_E5M2", "float8_e5m2"),
    36: ("FLOAT8_E4M3FN", "float8_e4m3fn"),
    37: ("FLOAT8_E8M0", "float8_e8m0fnu"),
    38: ("FLOAT6_E3M2", ""),
    39: ("FLOAT6_E2M3", ""),
    40: ("FLOAT4_E2M1", ""),
    41: ("FLOAT4_E1M2", ""),
}
"""The library's codes (the values of aclDataType), its names, and torch's names of those that can be compared."""

ND = 2
FRACTAL_NZ = 29
AS_GIVEN = (-1, 0, 1, ND, 16, 27, 30, 35, 47)  # undefined, NCHW, NHWC, ND, HWCN, NDHWC, NCDHW, NC, NCL
PRIVATE = {
    3: "NC1HWC0",
    4: "FRACTAL_Z",
    12: "NC1HWC0_C04",
    32: "NDC1HWC0",
    33: "FRACTAL_Z_3D",
    50: "FRACTAL_NZ_C0_16",
    51: "FRACTAL_NZ_C0_32",
}
