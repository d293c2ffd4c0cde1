// SPDX-License-Identifier: Apache-2.0
/** The libbpf calls we use, under their C names. No policy, no retries, no logging. Failures are a negative errno, or NULL + errno. */
import { koffi, openLibrary, type Pointer } from '../native.ts'

// libbpf writes to stderr unless told otherwise, and a container runtime shows that to the user.
const { declare } = openLibrary('libbpf.so', (library) => {
  library.func('void *libbpf_set_print(void *fn)')(null)
})

type Object = Pointer
type Program = Pointer
type Map = Pointer

export interface ObjectOpenOpts {
  /** Bytes of the struct: 32 up to pin_root_path. */
  readonly sz: number
  readonly object_name: string
  readonly relaxed_maps: boolean
  readonly pin_root_path: string
}

/** The first fields of struct bpf_object_open_opts (bpf/libbpf.h); `sz` tells libbpf that the rest is absent. */
function defineOpenOpts(): void {
  koffi().struct('bpf_object_open_opts', {
    sz: 'size_t',
    object_name: 'const char *',
    relaxed_maps: 'bool',
    pin_root_path: 'const char *',
  })
}

export const ffi = {
  /** The callback must live until it is replaced; the one before is returned. */
  libbpf_set_print: declare<(fn: Pointer | null) => Pointer | null>('void *libbpf_set_print(void *fn)'),
  libbpf_num_possible_cpus: declare<() => number>('int libbpf_num_possible_cpus(void)'),

  /** libbpf copies the ELF file and both strings: none is read after the call. The caller owns the object. */
  bpf_object__open_mem: declare<(buf: Buffer, size: number, opts: ObjectOpenOpts) => Object | null>(
    'void *bpf_object__open_mem(const void *buf, size_t size, const bpf_object_open_opts *opts)',
    defineOpenOpts,
  ),
  bpf_object__load: declare<(obj: Object) => number>('int bpf_object__load(void *obj)'),
  /** Frees the object and closes every descriptor that came from it. */
  bpf_object__close: declare<(obj: Object) => void>('void bpf_object__close(void *obj)'),
  bpf_object__next_program: declare<(obj: Object, prev: Program | null) => Program | null>(
    'void *bpf_object__next_program(const void *obj, void *prev)',
  ),
  bpf_object__find_program_by_name: declare<(obj: Object, name: string) => Program | null>(
    'void *bpf_object__find_program_by_name(const void *obj, const char *name)',
  ),
  bpf_object__next_map: declare<(obj: Object, prev: Map | null) => Map | null>(
    'void *bpf_object__next_map(const void *obj, const void *prev)',
  ),
  bpf_object__find_map_by_name: declare<(obj: Object, name: string) => Map | null>(
    'void *bpf_object__find_map_by_name(const void *obj, const char *name)',
  ),

  bpf_program__name: declare<(prog: Program) => string>('const char *bpf_program__name(const void *prog)'),
  bpf_program__autoload: declare<(prog: Program) => boolean>('bool bpf_program__autoload(const void *prog)'),
  bpf_program__set_autoload: declare<(prog: Program, on: boolean) => number>(
    'int bpf_program__set_autoload(void *prog, bool on)',
  ),
  /** The object owns the descriptor. */
  bpf_program__fd: declare<(prog: Program) => number>('int bpf_program__fd(const void *prog)'),

  bpf_map__name: declare<(map: Map) => string>('const char *bpf_map__name(const void *map)'),
  bpf_map__type: declare<(map: Map) => number>('int bpf_map__type(const void *map)'),
  bpf_map__key_size: declare<(map: Map) => number>('uint32_t bpf_map__key_size(const void *map)'),
  bpf_map__value_size: declare<(map: Map) => number>('uint32_t bpf_map__value_size(const void *map)'),
  bpf_map__max_entries: declare<(map: Map) => number>('uint32_t bpf_map__max_entries(const void *map)'),
  bpf_map__map_flags: declare<(map: Map) => number>('uint32_t bpf_map__map_flags(const void *map)'),
  bpf_map__pin_path: declare<(map: Map) => string | null>('const char *bpf_map__pin_path(const void *map)'),
  /** Copies `size` bytes. */
  bpf_map__set_initial_value: declare<(map: Map, data: Buffer, size: number) => number>(
    'int bpf_map__set_initial_value(void *map, const void *data, size_t size)',
  ),
  /** The object owns the descriptor. */
  bpf_map__fd: declare<(map: Map) => number>('int bpf_map__fd(const void *map)'),

  bpf_obj_pin: declare<(fd: number, path: string) => number>('int bpf_obj_pin(int fd, const char *path)'),
  /** The caller owns the descriptor. */
  bpf_obj_get: declare<(path: string) => number>('int bpf_obj_get(const char *path)'),
  /** Writes at most `info_len` (u32, in and out) bytes to `info`. */
  bpf_obj_get_info_by_fd: declare<(fd: number, info: Buffer, infoLen: Uint32Array) => number>(
    'int bpf_obj_get_info_by_fd(int fd, void *info, uint32_t *info_len)',
  ),

  /** The caller owns the descriptor. */
  bpf_link_create: declare<(progFd: number, targetFd: number, attachType: number, opts: null) => number>(
    'int bpf_link_create(int prog_fd, int target_fd, int attach_type, const void *opts)',
  ),
  bpf_link_update: declare<(linkFd: number, newProgFd: number, opts: null) => number>(
    'int bpf_link_update(int link_fd, int new_prog_fd, const void *opts)',
  ),
  bpf_link_detach: declare<(linkFd: number) => number>('int bpf_link_detach(int link_fd)'),

  // The kernel copies key_size and value_size bytes, whatever the length of the Buffer is.
  bpf_map_lookup_elem: declare<(fd: number, key: Buffer, value: Buffer) => number>(
    'int bpf_map_lookup_elem(int fd, const void *key, void *value)',
  ),
  bpf_map_lookup_and_delete_elem: declare<(fd: number, key: Buffer, value: Buffer) => number>(
    'int bpf_map_lookup_and_delete_elem(int fd, const void *key, void *value)',
  ),
  bpf_map_update_elem: declare<(fd: number, key: Buffer, value: Buffer, flags: number) => number>(
    'int bpf_map_update_elem(int fd, const void *key, const void *value, uint64_t flags)',
  ),
  bpf_map_delete_elem: declare<(fd: number, key: Buffer) => number>(
    'int bpf_map_delete_elem(int fd, const void *key)',
  ),
  /** `prev` null: the first key. */
  bpf_map_get_next_key: declare<(fd: number, prev: Buffer | null, next: Buffer) => number>(
    'int bpf_map_get_next_key(int fd, const void *prev, void *next)',
  ),
}
