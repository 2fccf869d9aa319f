/* Counts the words of a text and tells the most frequent ones: "wordcount FILE [TOP]".
 *
 * A word is a run of ASCII letters, upper and lower case alike. Prints "lines words distinct" and then TOP lines
 * "count word", the most frequent first, words of one count in the order of the alphabet. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 4096, LONGEST_WORD = 63 };

struct entry {
    struct entry *next;
    long count;
    char word[LONGEST_WORD + 1];
};

static struct entry *buckets[BUCKETS];
static long lines, words, distinct;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void count_word(const char *word)
{
    unsigned hash = 5381;
    for (const char *c = word; *c; c++)
        hash = hash * 33 + (unsigned char)*c;
    struct entry **at = &buckets[hash % BUCKETS];
    while (*at && strcmp((*at)->word, word) != 0)
        at = &(*at)->next;
    if (!*at) {
        *at = calloc(1, sizeof **at);
        if (!*at)
            die("calloc");
        strcpy((*at)->word, word);
        distinct++;
    }
    (*at)->count++;
    words++;
}

static void count_file(FILE *file)
{
    char word[LONGEST_WORD + 1];
    size_t length = 0;
    int c;
    do {
        c = getc(file);
        if (c != EOF && c < 128 && isalpha(c)) {
            if (length < LONGEST_WORD)
                word[length++] = (char)tolower(c);
            continue;
        }
        if (length) {
            word[length] = '\0';
            count_word(word);
            length = 0;
        }
        lines += c == '\n';
    } while (c != EOF);
    if (ferror(file))
        die("read");
}

static int by_count(const void *left, const void *right)
{
    const struct entry *a = *(struct entry *const *)left, *b = *(struct entry *const *)right;
    if (a->count != b->count)
        return a->count < b->count ? 1 : -1;
    return strcmp(a->word, b->word);
}

int main(int argc, char **argv)
{
    long top = argc > 2 ? strtol(argv[2], NULL, 10) : 10;
    FILE *file = argc > 1 ? fopen(argv[1], "r") : NULL;
    if (!file)
        die(argc > 1 ? argv[1] : "usage: wordcount FILE [TOP]");
    count_file(file);
    fclose(file);

    struct entry **all = malloc((size_t)(distinct + 1) * sizeof *all);
    if (!all)
        die("malloc");
    long found = 0;
    for (int bucket = 0; bucket < BUCKETS; bucket++)
        for (struct entry *entry = buckets[bucket]; entry; entry = entry->next)
            all[found++] = entry;
    qsort(all, (size_t)found, sizeof *all, by_count);

    printf("%ld lines, %ld words, %ld distinct\n", lines, words, distinct);
    for (long i = 0; i < top && i < found; i++)
        printf("%6ld %s\n", all[i]->count, all[i]->word);
    return 0;
}
