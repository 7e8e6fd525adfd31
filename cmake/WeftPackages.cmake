# Third-party packages, each as one imported target; all headers are SYSTEM so that only our code warns.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(OpenSSL 3 REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CapnProto REQUIRED)
find_package(SQLite3 REQUIRED)
find_package(SQLiteCpp REQUIRED)
find_package(CLI11 REQUIRED)

function(_weft_pkg target)
  string(MAKE_C_IDENTIFIER "${target}" var)
  pkg_check_modules(${var} REQUIRED IMPORTED_TARGET ${ARGN})
  add_library(${target} INTERFACE)
  target_link_libraries(${target} INTERFACE PkgConfig::${var})
endfunction()
_weft_pkg(weft_zmq libzmq)
_weft_pkg(weft_pcre2 libpcre2-8)
_weft_pkg(weft_utf8proc libutf8proc)
_weft_pkg(weft_sentencepiece sentencepiece)
_weft_pkg(weft_xxhash libxxhash)
_weft_pkg(weft_zstd libzstd)
if(WEFT_TORCH)
  _weft_pkg(weft_httplib cpp-httplib)
endif()

find_path(WEFT_TOMLPP_INCLUDE toml++/toml.h REQUIRED)
add_library(weft_tomlplusplus INTERFACE)
target_include_directories(weft_tomlplusplus SYSTEM INTERFACE "${WEFT_TOMLPP_INCLUDE}")

# jemalloc keeps pages that a training step frees and takes again; without it page faults cost up to 40 % of a bfloat16 step.
add_library(weft_allocator INTERFACE)
pkg_check_modules(JEMALLOC IMPORTED_TARGET jemalloc)
if(JEMALLOC_FOUND AND NOT WEFT_SANITIZE)
  target_link_options(weft_allocator INTERFACE -Wl,--no-as-needed)
  target_link_libraries(weft_allocator INTERFACE PkgConfig::JEMALLOC)
endif()

if(WEFT_TESTS)
  find_package(GTest REQUIRED)
  include(GoogleTest)
  find_package(rapidcheck CONFIG QUIET)
  add_library(weft_gtest INTERFACE)
  target_link_libraries(weft_gtest INTERFACE GTest::gtest GTest::gmock GTest::gtest_main)
endif()

function(_weft_capnp_library target dir)
  file(GLOB schemas CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/${dir}/*.capnp")
  if(NOT schemas)
    add_library(${target} INTERFACE)
    return()
  endif()
  set(CAPNPC_OUTPUT_DIR "${CMAKE_BINARY_DIR}/generated/${dir}")
  set(CAPNPC_SRC_PREFIX "${CMAKE_SOURCE_DIR}/${dir}")
  file(MAKE_DIRECTORY "${CAPNPC_OUTPUT_DIR}")
  capnp_generate_cpp(sources headers ${schemas})
  add_library(${target} STATIC ${sources})
  target_include_directories(${target} SYSTEM PUBLIC "${CMAKE_BINARY_DIR}/generated")
  target_link_libraries(${target} PUBLIC CapnProto::capnp)
endfunction()

# LibTorch: TORCH_DIR names either a LibTorch folder or a wheel's torch/ folder; default .deps/python/torch.
# We link the libraries directly instead of find_package(Torch): the CUDA wheel's CMake files demand a CUDA
# toolkit that a machine which only runs Weft does not need.
if(WEFT_TORCH)
  set(TORCH_DIR "$ENV{TORCH_DIR}" CACHE PATH "LibTorch folder (has include/ and lib/)")
  if(NOT TORCH_DIR)
    set(TORCH_DIR "${CMAKE_SOURCE_DIR}/.deps/python/torch" CACHE PATH "LibTorch folder" FORCE)
  endif()
  if(NOT EXISTS "${TORCH_DIR}/include/ATen/ATen.h")
    message(FATAL_ERROR "weft: no LibTorch at ${TORCH_DIR} (wanted include/ATen/ATen.h below it). "
      "Run scripts/setup.sh, or set TORCH_DIR to a LibTorch folder or a wheel's torch/ folder, "
      "or use the core preset, which needs no LibTorch.")
  endif()
  add_library(weft_torch INTERFACE)
  target_include_directories(weft_torch SYSTEM INTERFACE
    "${TORCH_DIR}/include" "${TORCH_DIR}/include/torch/csrc/api/include")
  target_link_directories(weft_torch INTERFACE "${TORCH_DIR}/lib")
  target_link_libraries(weft_torch INTERFACE
    "${TORCH_DIR}/lib/libtorch.so" "${TORCH_DIR}/lib/libtorch_cpu.so" "${TORCH_DIR}/lib/libc10.so" Threads::Threads)
  # ATen's parallel_for is a template: compiled without OpenMP it runs everything on one thread and says nothing.
  find_package(OpenMP REQUIRED COMPONENTS CXX)
  target_link_libraries(weft_torch INTERFACE OpenMP::OpenMP_CXX)
  if(EXISTS "${TORCH_DIR}/lib/libtorch_cuda.so")
    message(STATUS "weft: LibTorch has CUDA")
    # --no-as-needed: nothing refers to these by symbol, they register their kernels when loaded.
    target_link_libraries(weft_torch INTERFACE -Wl,--no-as-needed "${TORCH_DIR}/lib/libtorch_cuda.so"
      "${TORCH_DIR}/lib/libc10_cuda.so" -Wl,--as-needed)
    target_link_options(weft_torch INTERFACE -Wl,--allow-shlib-undefined)
  endif()
  set(CMAKE_BUILD_RPATH "${TORCH_DIR}/lib")
endif()
