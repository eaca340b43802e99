/* A plug-in of QEMU's user-mode emulator: counts the A64 instructions that a thread executes between marks, by class.
 *
 * A mark is the system call sched_get_priority_max(MARK), which has no effect. From the second mark on, each writes the
 * counts since the one before as a line `name count name count ...` to the file `out`. Other threads (of BLAS, of ONNX
 * Runtime) wait in loops that depend on time: only the one that makes the marks is counted.
 *
 * QEMU's plug-in interface is declared here as far as it is used (docs/devel/tcg-plugins.rst), so that a C compiler is all
 * that building takes: cc -shared -fPIC -DAPI=1 count.c. Encodings are those of the Arm Architecture Reference Manual
 * for A-profile, C4.1 (index by encoding) and C7.2 (SIMD and floating point).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define MARK 0x5EED
#define SCHED_GET_PRIORITY_MAX 125 /* of Linux on arm64 */
#define NO_REGISTERS 0             /* QEMU_PLUGIN_CB_NO_REGS: what a callback reads */

typedef uint64_t plugin_id;
struct tb;
struct insn;
typedef void (*tb_callback)(plugin_id, struct tb *);
typedef void (*run_callback)(unsigned, void *);
typedef void (*syscall_callback)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                                 uint64_t, uint64_t);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, tb_callback);
extern void qemu_plugin_register_vcpu_syscall_cb(plugin_id, syscall_callback);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct tb *, run_callback, int flags, void *data);
extern size_t qemu_plugin_tb_n_insns(const struct tb *);
extern struct insn *qemu_plugin_tb_get_insn(const struct tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct insn *);

EXPORT int qemu_plugin_version = API;

enum { TOTAL, DOT, DOT_HALF, MMLA, MLAL, FMLA, BF16, LOAD, STORE, CLASSES };
static const char *const NAMES[CLASSES] = {"total", "dot", "dot_half", "mmla", "mlal", "fmla", "bf16", "load", "store"};
static uint64_t counts[CLASSES];
static FILE *out;
static bool marked;
static unsigned counted; /* the thread that made the last mark */

struct pattern {
    uint32_t mask, value;
    int class;
};

static const struct pattern PATTERNS[] = {
    {0xDFE0FC00, 0x4E809400, DOT},      /* SDOT, UDOT (vector), 128 bits */
    {0xDFC0F400, 0x4F80E000, DOT},      /* SDOT, UDOT (by element) */
    {0xFFE0FC00, 0x4E809C00, DOT},      /* USDOT (vector) */
    {0xFFC0F400, 0x4F80F000, DOT},      /* USDOT (by element) */
    {0xFFC0F400, 0x4F00F000, DOT},      /* SUDOT (by element) */
    {0xDFE0FC00, 0x0E809400, DOT_HALF}, /* the same of 64 bits */
    {0xDFC0F400, 0x0F80E000, DOT_HALF},
    {0xFFE0FC00, 0x0E809C00, DOT_HALF},
    {0xFFC0F400, 0x0F80F000, DOT_HALF},
    {0xFFC0F400, 0x0F00F000, DOT_HALF},
    {0xDFE0FC00, 0x4E80A400, MMLA}, /* SMMLA, UMMLA */
    {0xFFE0FC00, 0x4E80AC00, MMLA}, /* USMMLA */
    {0x9F20DC00, 0x0E208000, MLAL}, /* SMLAL, UMLAL, SMLSL, UMLSL (bit 13), vector: opcode 10x0 */
    {0x9F20FC00, 0x0E20C000, MLAL}, /* SMULL, UMULL (vector) */
    {0x9F00B400, 0x0F002000, MLAL}, /* SMLAL, UMLAL, SMLSL, UMLSL (by element): opcode 0x10 */
    {0x9F00F400, 0x0F00A000, MLAL}, /* SMULL, UMULL (by element) */
    {0x9F20FC00, 0x0E209400, MLAL}, /* MLA, MLS (vector) */
    {0xBF00B400, 0x2F000000, MLAL}, /* MLA, MLS (by element): opcode 0x00 */
    {0xBFA0FC00, 0x0E20CC00, FMLA}, /* FMLA (vector), single and double */
    {0xBF80F400, 0x0F801000, FMLA}, /* FMLA (by element) */
    {0xBFE0FC00, 0x0E400C00, FMLA}, /* FMLA (vector), half */
    {0xBFC0F400, 0x0F001000, FMLA}, /* FMLA (by element), half */
    {0xFF208000, 0x1F000000, FMLA}, /* FMADD */
    {0xBFE0FC00, 0x2E40FC00, BF16}, /* BFDOT (vector) */
    {0xBFC0F400, 0x0F40F000, BF16}, /* BFDOT (by element) */
    {0xFFE0FC00, 0x6E40EC00, BF16}, /* BFMMLA */
};

/* Of the group of loads and stores; exclusive and atomic ones that return a value count as loads. */
static int memory_class(uint32_t code)
{
    if ((code & 0x3B000000) == 0x18000000)
        return (code >> 30) == 3 && !(code & 1u << 26) ? -1 : LOAD; /* literal; PRFM */
    if ((code & 0x38000000) != 0x38000000)
        return code & 1u << 22 ? LOAD : STORE; /* pairs, structures, exclusive */
    if ((code & 0x3F200C00) == 0x38200000)
        return LOAD; /* atomic memory operations */
    if (code & 1u << 26)
        return code & 1u << 22 ? LOAD : STORE; /* SIMD registers */
    unsigned opc = code >> 22 & 3;
    if ((code >> 30) == 3 && opc == 2)
        return -1; /* PRFM, PRFUM */
    return opc == 0 ? STORE : LOAD;
}

static int class_of(uint32_t code)
{
    if ((code & 0x0A000000) == 0x08000000)
        return memory_class(code);
    for (size_t place = 0; place < sizeof PATTERNS / sizeof *PATTERNS; place++)
        if ((code & PATTERNS[place].mask) == PATTERNS[place].value)
            return PATTERNS[place].class;
    return -1;
}

static void executed(unsigned cpu, void *data)
{
    const uint64_t *found = data;
    if (!marked || cpu != counted)
        return;
    for (int class = 0; class < CLASSES; class++)
        counts[class] += found[class];
}

/* A block of code was translated: its counts are kept, and added whenever it is executed. */
static void translated(plugin_id id, struct tb *tb)
{
    uint64_t *found = calloc(CLASSES, sizeof *found);
    (void)id;
    if (found == NULL)
        abort();
    found[TOTAL] = qemu_plugin_tb_n_insns(tb);
    for (size_t place = 0; place < found[TOTAL]; place++) {
        uint32_t code;
        memcpy(&code, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, place)), sizeof code);
        int class = class_of(code);
        if (class >= 0)
            found[class]++;
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, NO_REGISTERS, found);
}

static void called(plugin_id id, unsigned cpu, int64_t number, uint64_t first, uint64_t b, uint64_t c, uint64_t d,
                   uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    (void)id, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number != SCHED_GET_PRIORITY_MAX || first != MARK)
        return;
    if (marked && cpu == counted) {
        for (int class = 0; class < CLASSES; class++)
            fprintf(out, "%s %llu%c", NAMES[class], (unsigned long long)counts[class], class + 1 < CLASSES ? ' ' : '\n');
        fflush(out);
    }
    marked = true;
    counted = cpu;
    memset(counts, 0, sizeof counts);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4) != 0)
        return -1;
    out = fopen(argv[0] + 4, "w");
    if (out == NULL)
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
