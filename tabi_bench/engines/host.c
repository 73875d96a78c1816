/* Classifiers without layers, one query at a time. host.py says the same in numpy; there the arrays are explained.

   Most of a query is spent waiting for memory that other work displaced from the caches. So what is read is short
   (16-bit integers with a factor per column or row, what belongs to a token side by side) and asked for early. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LOG2_E 1.44269504f
enum { LINE = 64 }; /* bytes of the cache's unit */
#define APART __attribute__((noinline)) /* a loop that stays the innermost one, and so becomes vector instructions */

typedef struct {
    const int16_t *weight;        /* (rows, columns), row k in units of scale[k] */
    const float *scale, *bias;    /* (rows) */
    int32_t rows, columns;
} linear;

typedef struct {
    const int16_t *table;    /* (V, row): what tokens bring along, column c in units of scale[c] */
    const float *scale;      /* (row) */
    linear hidden, head;     /* of a comparison; of both */
    const int32_t *ids;      /* in: (max_length) tokens */
    float *scratch;          /* native.py knows how much */
    float *features, *outputs;  /* out: what the head reads; logits, then probabilities */
    float temperature;       /* in */
    float sure;              /* out: the largest probability, NaN if a logit is not finite */
} model;

/* 2^x for -126 <= x < 127, to 3e-7 of it; less is taken for -126. */
void powers(float *restrict x, int32_t n) {
    for (int i = 0; i < n; i++) {
        float at = x[i] < -126 ? -126 : x[i], factor;
        int32_t whole = (int32_t)(at + 126.5f) - 126, bits = (whole + 127) * (1 << 23);
        float rest = at - whole; /* -0.5 to 0.5 */
        memcpy(&factor, &bits, sizeof factor);
        x[i] = factor * (1.00000012f + rest * (0.693146944f + rest * (0.240221202f + rest * (0.0555071309f +
                         rest * (0.00967554189f + rest * 0.00132764725f)))));
    }
}

static void fetch(const void *from, int bytes) {
    for (int at = 0; at < bytes; at += LINE) __builtin_prefetch((const char *)from + at, 0, 2);
}

/* to (n): x in steps of what is returned, the largest being INPUT steps; NaN if x is not finite. */
static float steps(const float *restrict x, int n, int16_t *restrict to) {
    float most = 0, none = 0;
    for (int i = 0; i < n; i++) {
        float size = fabsf(x[i]);
        most = size > most ? size : most;
        none += 0 * x[i];
    }
    const float per = most > 0 ? INPUT / most : 0;
    for (int i = 0; i < n; i++) to[i] = (int16_t)((int32_t)(x[i] * per + (INPUT + 0.5f)) - INPUT);
    return most / INPUT + none;
}

/* to (4): products of four rows, (4, n), with x (n). */
static APART void dot4(const int16_t *restrict rows, const int16_t *restrict x, int n, int32_t *restrict to) {
    int32_t a = 0, b = 0, c = 0, d = 0;
    for (int i = 0; i < n; i++) {
        a += rows[i] * x[i];
        b += rows[n + i] * x[i];
        c += rows[2 * n + i] * x[i];
        d += rows[3 * n + i] * x[i];
    }
    to[0] = a, to[1] = b, to[2] = c, to[3] = d;
}

static APART int32_t dot(const int16_t *restrict row, const int16_t *restrict x, int n) {
    int32_t sum = 0;
    for (int i = 0; i < n; i++) sum += row[i] * x[i];
    return sum;
}

/* to (rows): the layer's bias and product with x (columns). Weights are small enough for sums of 32 bits. */
static void apply(const linear *l, const float *restrict x, float *restrict to) {
    const int n = l->columns;
    int16_t in[n];
    const float step = steps(x, n, in);
    int32_t sum[4];
    int k = 0;
    for (; k + 4 <= l->rows; k += 4) {
        dot4(l->weight + (int64_t)k * n, in, n, sum);
        for (int i = 0; i < 4; i++) to[k + i] = l->bias[k + i] + step * l->scale[k + i] * sum[i];
    }
    for (; k < l->rows; k++) to[k] = l->bias[k] + step * l->scale[k] * dot(l->weight + (int64_t)k * n, in, n);
}

/* Logits, probabilities and the largest of them; returns the likeliest output. */
static int32_t head(model *m) {
    const int n = m->head.rows;
    float *restrict logits = m->outputs, *restrict odds = m->outputs + n, total = 0, sum = 0;
    int32_t best = 0;
    apply(&m->head, m->features, logits);
    for (int k = 1; k < n; k++)
        if (logits[k] > logits[best]) best = k;
    const float per = LOG2_E / m->temperature, most = logits[best];
    for (int k = 0; k < n; k++) odds[k] = (logits[k] - most) * per;
    powers(odds, n);
    for (int k = 0; k < n; k++) {
        total += odds[k];
        sum += logits[k];
    }
    for (int k = 0; k < n; k++) odds[k] /= total;
    m->sure = 1 / total + 0 * sum;
    return best;
}

/* most, total (FILTERS): with what the filters find at a token. */
static APART void look(const int16_t *restrict before, const int16_t *restrict at, const int16_t *restrict after,
                       int16_t *restrict most, int32_t *restrict total) {
    for (int c = 0; c < FILTERS; c++) {
        int16_t found = before[c] + at[c] + after[c];
        found = found > 0 ? found : 0;
        most[c] = found > most[c] ? found : most[c];
        total[c] += found;
    }
}

/* A token's row: before, at, after, FILTERS each; a sum of three has 16 bits. */
int32_t convolution(model *m, int32_t first, int32_t length) {
    (void)first;
    enum { ROW = 3 * FILTERS };
    static const int16_t nothing[FILTERS];
    int16_t most[FILTERS] = {0};
    int32_t total[FILTERS] = {0};
    for (int l = 0; l < length; l++) fetch(m->table + (int64_t)m->ids[l] * ROW, ROW * sizeof(int16_t));
    const int16_t *before = nothing, *row = m->table + (int64_t)m->ids[0] * ROW;
    for (int l = 0; l < length; l++) {
        const int16_t *next = l + 1 < length ? m->table + (int64_t)m->ids[l + 1] * ROW : 0;
        look(before, row + FILTERS, next ? next + 2 * FILTERS : nothing, most, total);
        before = row;
        row = next;
    }
    for (int c = 0; c < FILTERS; c++) {
        m->features[c] = m->scale[c] * total[c] / length;
        m->features[FILTERS + c] = m->scale[c] * most[c];
    }
    return head(m);
}

/* A token's row: keys, own, other; what it brings to the hidden layer in the first text; summary; and in the second. */
enum { KEY = 0, OWN = KEY + KEYS, OTHER = OWN + COMPARED, FIRST = OTHER + COMPARED, SUMMARY = FIRST + HIDDEN,
       SECOND = SUMMARY + COMPARED, TOKEN = SECOND + HIDDEN, BOTH = HIDDEN + COMPARED };

static APART void count(int32_t *restrict total, const int16_t *restrict row) {
    for (int c = 0; c < BOTH; c++) total[c] += row[c];
}

/* to (BOTH): the mean of summary and what comes before or after it, from column `part` on, over the tokens of a text. */
static void mean(const model *m, const int32_t *ids, int length, int part, float *restrict to) {
    int32_t total[BOTH] = {0};
    for (int l = 0; l < length; l++) count(total, m->table + (int64_t)ids[l] * TOKEN + part);
    for (int c = 0; c < BOTH; c++) to[c] = m->scale[part + c] * total[c] / length;
}

/* to (n, COMPARED), the rows up to `until` zero: what the tokens of a text are to the other text. */
static void others(const model *m, const int32_t *ids, int n, int until, float *restrict to) {
    for (int l = 0; l < n; l++, to += COMPARED) {
        const int16_t *restrict row = m->table + (int64_t)ids[l] * TOKEN + OTHER;
        for (int c = 0; c < COMPARED; c++) to[c] = m->scale[OTHER + c] * row[c];
    }
    memset(to, 0, (until - n) * COMPARED * sizeof(float));
}

/* a, b (COMPARED): with four rows, by weights (4) each. */
static APART void add(float *restrict a, const float *restrict v, float *restrict b, const float *restrict w,
                      const float *restrict rows) {
    const float v0 = v[0], v1 = v[1], v2 = v[2], v3 = v[3], w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3];
    for (int c = 0; c < COMPARED; c++) {
        float p = rows[c], q = rows[COMPARED + c], r = rows[2 * COMPARED + c], s = rows[3 * COMPARED + c];
        a[c] += v0 * p + v1 * q + v2 * r + v3 * s;
        b[c] += w0 * p + w1 * q + w2 * r + w3 * s;
    }
}

/* to (COMPARED): the mean over one text's tokens of what each is compared with: its own row and the other text's rows
   (n_theirs, a multiple of four), by weights (n, n_theirs). Two tokens at a time share the rows. */
static void compare(const model *m, const int32_t *own, int n, const float *restrict theirs, int n_theirs,
                    const float *restrict weights, float *restrict to) {
    const float *scale = m->scale + OWN;
    memset(to, 0, COMPARED * sizeof(float));
    for (int i = 0; i < n; i += 2) {
        const int two = i + 1 < n;
        const float *v = weights + (int64_t)i * n_theirs, *w = two ? v + n_theirs : v;
        float a[COMPARED] = {0}, b[COMPARED] = {0}, total_a = 0, total_b = 0;
        for (int j = 0; j < n_theirs; j += 4) {
            add(a, v + j, b, w + j, theirs + (int64_t)j * COMPARED);
            total_a += v[j] + v[j + 1] + v[j + 2] + v[j + 3];
            total_b += w[j] + w[j + 1] + w[j + 2] + w[j + 3];
        }
        const int16_t *own_a = m->table + (int64_t)own[i] * TOKEN + OWN;
        const int16_t *own_b = m->table + (int64_t)own[i + two] * TOKEN + OWN;
        const float per_a = 1 / total_a, per_b = 1 / total_b;
        for (int c = 0; c < COMPARED; c++) {
            float x = scale[c] * own_a[c] + per_a * a[c], y = scale[c] * own_b[c] + per_b * b[c];
            to[c] += (x < 0 ? 0 : x) + (!two || y < 0 ? 0 : y);
        }
    }
    for (int c = 0; c < COMPARED; c++) to[c] /= n;
}

int32_t comparison(model *m, int32_t first, int32_t length) {
    const int32_t *a = m->ids, *b = m->ids + first;
    const int second = length - first, high = (first + 3) & ~3, wide = (second + 3) & ~3;
    for (int l = 0; l < length; l++)
        fetch(m->table + (int64_t)m->ids[l] * TOKEN, (l < first ? SECOND : TOKEN) * sizeof(int16_t));

    float *restrict x = m->scratch, *restrict from_a = x + 4 * COMPARED, *restrict from_b = from_a + BOTH;
    float *restrict others_a = from_b + BOTH, *restrict others_b = others_a + high * COMPARED;
    float *restrict alike = others_b + wide * COMPARED, *restrict ekila = alike + first * wide;
    const float sharpness = m->scale[KEY] * m->scale[KEY] * LOG2_E;
    memset(alike, 0, (first * wide + second * high) * sizeof(float));
    for (int i = 0; i < first; i++) {
        const int16_t *restrict key = m->table + (int64_t)a[i] * TOKEN + KEY;
        float *restrict row = alike + i * wide;
        for (int j = 0; j < second; j++) {
            row[j] = sharpness * dot(key, m->table + (int64_t)b[j] * TOKEN + KEY, KEYS);
        }
        powers(row, second);
        for (int j = 0; j < second; j++) ekila[j * high + i] = row[j];
    }
    others(m, a, first, high, others_a);
    others(m, b, second, wide, others_b);
    compare(m, a, first, others_b, wide, alike, x);
    compare(m, b, second, others_a, high, ekila, x + COMPARED);
    mean(m, a, first, FIRST, from_a);
    mean(m, b, second, SUMMARY, from_b);
    for (int c = 0; c < COMPARED; c++) {
        const float u = from_a[HIDDEN + c], v = from_b[c];
        x[2 * COMPARED + c] = fabsf(u - v);
        x[3 * COMPARED + c] = u * v;
    }
    apply(&m->hidden, x, m->features);
    for (int k = 0; k < HIDDEN; k++) {
        float sum = m->features[k] + from_a[k] + from_b[COMPARED + k];
        m->features[k] = sum < 0 ? 0 : sum;
    }
    return head(m);
}
