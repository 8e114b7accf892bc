/* passage.py, compiled: it says what is done here and why, and does the same itself where nobody
 * compiled this. Both answer to the same tests.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#define _GNU_SOURCE /* memmem */
#include <Python.h>
#include <stddef.h>
#include <string.h>
#include <structmember.h>

#define MAX_SIZE_DIGITS 3

static const char EVENT[] = "data: {\"";
static const char ERROR_MARK[] = "{\"error\"";
static const char USAGE_FIELD[] = "\"usage\"";

static const char *find(const char *data, Py_ssize_t size, const char *mark) {
    return memmem(data, size, mark, strlen(mark));
}

static int digit(char character) {
    if (character >= '0' && character <= '9') return character - '0';
    if (character >= 'a' && character <= 'f') return character - 'a' + 10;
    return -1;
}

static int is_framed(const char *data, Py_ssize_t size) {
    Py_ssize_t at = 0;
    while (at < size) {
        Py_ssize_t body = 0;
        int digits = 0;
        for (int value; at < size && (value = digit(data[at])) >= 0; at++) {
            if (++digits > MAX_SIZE_DIGITS || (body == 0 && value == 0)) return 0;
            body = body * 16 + value;
        }
        /* To come: a line's end, the body, whose last byte ends a line, and another line's end. */
        if (body == 0 || size - at < body + 4) return 0;
        if (memcmp(data + at, "\r\n", 2) != 0) return 0;
        at += body + 4;
        if (memcmp(data + at - 3, "\n\r\n", 3) != 0) return 0;
    }
    return 1;
}

static Py_ssize_t events_in(const char *data, Py_ssize_t size) {
    if (!is_framed(data, size) || find(data, size, ERROR_MARK) || find(data, size, USAGE_FIELD))
        return -1;
    Py_ssize_t count = 0;
    for (const char *at = data, *end = data + size; (at = find(at, end - at, EVENT)); count++)
        at += strlen(EVENT);
    return count;
}

/* --- the class -------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *way;
    Py_ssize_t passed, received;
    char clear;
} Passage;

static PyObject *data_received(PyObject *object, PyObject *given) {
    Passage *self = (Passage *)object;
    self->received++;
    if (self->clear && self->way != NULL && self->way != Py_None) {
        char *data;
        Py_ssize_t size, events;
        if (PyBytes_AsStringAndSize(given, &data, &size) < 0) return NULL;
        if ((events = events_in(data, size)) >= 0) {
            self->passed += events;
            PyObject *way = Py_NewRef(self->way); /* which it may itself take away */
            PyObject *done = PyObject_CallFunctionObjArgs(way, given, NULL);
            Py_DECREF(way);
            return done;
        }
    }
    PyObject *parse = PyObject_GetAttrString(object, "parse");
    if (parse == NULL) return NULL;
    PyObject *done = PyObject_CallFunctionObjArgs(parse, given, NULL);
    Py_DECREF(parse);
    return done;
}

static int traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((Passage *)object)->way);
    return 0;
}

static int clear(PyObject *object) {
    Py_CLEAR(((Passage *)object)->way);
    return 0;
}

static void dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    clear(object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyMemberDef members[] = {
    {"way", T_OBJECT, offsetof(Passage, way), 0, "Takes what passes, while it may."},
    {"clear", T_BOOL, offsetof(Passage, clear), 0, "What came before ended a chunk, and a line."},
    {"passed", T_PYSSIZET, offsetof(Passage, passed), 0, "Events that went this way."},
    {"received", T_PYSSIZET, offsetof(Passage, received), 0, "How often anything was said."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef methods[] = {
    {"data_received", data_received, METH_O, "Bytes of an answer."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "One connection's bytes, as its transport tells them."},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_dealloc, dealloc},
    {Py_tp_members, members},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec passage = {
    "serving.gateway._passage.Passage", sizeof(Passage), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots,
};

/* --- the module ------------------------------------------------------------------------------- */

static int fill(PyObject *module) {
    PyObject *type = PyType_FromSpec(&passage);
    if (type == NULL) return -1;
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot parts[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_passage", "passage.py, compiled.", 0, NULL, parts,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__passage(void) { return PyModuleDef_Init(&module); }
