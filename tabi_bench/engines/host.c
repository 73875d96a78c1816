/* Classifiers without layers, one query at a time. host.py says the same in numpy; there the tables are explained. */

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const float *before, *at, *after;            /* a convolution's tables, (V, width) */
    const float *keys, *own, *other, *summary;   /* a comparison's tables, (V, n_keys) and (V, width) */
    const float *hidden_weight, *hidden_bias;    /* (n_features, 6 width), (n_features) */
    const float *head_weight, *head_bias;        /* (n_outputs, n_features), (n_outputs) */
    int32_t width, n_keys, n_features, n_outputs;
    float temperature;                           /* in */
    int64_t *ids;                                /* in: (max_length) pieces */
    float *scratch;                              /* 7 width, and max_length squared */
    float *features, *logits, *odds;             /* out: (n_features), (n_outputs) twice */
    float total, sum;                            /* out: of the odds, of the logits */
} model;

static float dot(const float *restrict a, const float *restrict b, int n) {
    float sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static void add(float *restrict to, const float *restrict from, float factor, int n) {
    for (int i = 0; i < n; i++) to[i] += factor * from[i];
}

static void add4(float *restrict to, const float *restrict a, float fa, const float *restrict b, float fb,
                 const float *restrict c, float fc, const float *restrict d, float fd, int n) {
    for (int i = 0; i < n; i++) to[i] += fa * a[i] + fb * b[i] + fc * c[i] + fd * d[i];
}

/* Logits and odds of the features; returns the likeliest output. */
static int32_t head(model *m) {
    int32_t best = 0;
    for (int k = 0; k < m->n_outputs; k++) {
        m->logits[k] = m->head_bias[k] + dot(m->head_weight + (int64_t)k * m->n_features, m->features, m->n_features);
        if (m->logits[k] > m->logits[best]) best = k;
    }
    m->total = m->sum = 0;
    for (int k = 0; k < m->n_outputs; k++) {
        m->odds[k] = expf((m->logits[k] - m->logits[best]) / m->temperature);
        m->total += m->odds[k];
        m->sum += m->logits[k];
    }
    return best;
}

int32_t convolution(model *m, int32_t length) {
    const int w = m->width;
    const int64_t *ids = m->ids;
    float *restrict row = m->scratch, *restrict mean = m->features, *restrict most = m->features + w;
    memset(m->features, 0, 2 * w * sizeof(float));
    for (int l = 0; l < length; l++) {
        memcpy(row, m->at + ids[l] * w, w * sizeof(float));
        if (l > 0) add(row, m->before + ids[l - 1] * w, 1, w);
        if (l + 1 < length) add(row, m->after + ids[l + 1] * w, 1, w);
        for (int i = 0; i < w; i++) {
            float found = row[i] > 0 ? row[i] : 0;
            mean[i] += found;
            most[i] = found > most[i] ? found : most[i];
        }
    }
    for (int i = 0; i < w; i++) mean[i] /= length;
    return head(m);
}

/* to (w): the mean over one text's pieces of what each is compared with: its own row and the other text's, weighted. */
static void compare(const model *m, const int64_t *mine, int n, const int64_t *theirs, int n_theirs,
                    const float *alike, int down, int across, float *restrict row, float *restrict to) {
    const int w = m->width;
    for (int i = 0; i < n; i++, alike += down) {
        float total = 0;
        for (int j = 0; j < n_theirs; j++) total += alike[j * across];
        const float *other = m->other;
        const float scale = 1 / total;
        memcpy(row, m->own + mine[i] * w, w * sizeof(float));
        int j = 0;
        for (; j + 4 <= n_theirs; j += 4)
            add4(row, other + theirs[j] * w, scale * alike[j * across],
                 other + theirs[j + 1] * w, scale * alike[(j + 1) * across],
                 other + theirs[j + 2] * w, scale * alike[(j + 2) * across],
                 other + theirs[j + 3] * w, scale * alike[(j + 3) * across], w);
        for (; j < n_theirs; j++) add(row, other + theirs[j] * w, scale * alike[j * across], w);
        for (int k = 0; k < w; k++) to[k] += row[k] > 0 ? row[k] : 0;
    }
    for (int k = 0; k < w; k++) to[k] /= n;
}

int32_t comparison(model *m, int32_t first, int32_t length) {
    const int w = m->width, second = length - first;
    const int64_t *a = m->ids, *b = m->ids + first;
    float *restrict row = m->scratch, *restrict all = row + w, *restrict alike = all + 6 * w;
    float *mean_a = all, *u = all + w, *mean_b = all + 2 * w, *v = all + 3 * w, *apart = all + 4 * w, *both = all + 5 * w;
    memset(all, 0, 6 * w * sizeof(float));
    for (int i = 0; i < first; i++)
        for (int j = 0; j < second; j++)
            alike[i * second + j] = expf(dot(m->keys + a[i] * m->n_keys, m->keys + b[j] * m->n_keys, m->n_keys));
    compare(m, a, first, b, second, alike, second, 1, row, mean_a);
    compare(m, b, second, a, first, alike, 1, second, row, mean_b);
    for (int i = 0; i < first; i++) add(u, m->summary + a[i] * w, 1.0f / first, w);
    for (int j = 0; j < second; j++) add(v, m->summary + b[j] * w, 1.0f / second, w);
    for (int k = 0; k < w; k++) {
        apart[k] = fabsf(u[k] - v[k]);
        both[k] = u[k] * v[k];
    }
    for (int k = 0; k < m->n_features; k++) {
        float sum = m->hidden_bias[k] + dot(m->hidden_weight + (int64_t)k * 6 * w, all, 6 * w);
        m->features[k] = sum > 0 ? sum : 0;
    }
    return head(m);
}
