/* sudo for the small guest: everybody is root without a password, the environment does not come along. */
#define _GNU_SOURCE
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **words)
{
    const char *name = "root";
    int keep = 0, shell = 0, at = 1;
    char *term = getenv("TERM"), *from = NULL;
    struct passwd *caller = getpwuid(getuid());
    if (caller)
        from = strdup(caller->pw_name);
    for (; at < count && words[at][0] == '-'; at++) {
        if (!strcmp(words[at], "--")) {
            at++;
            break;
        }
        if (!strcmp(words[at], "-u") && at + 1 < count)
            name = words[++at];
        else if (!strcmp(words[at], "-p") && at + 1 < count)
            at++;
        else if (!strcmp(words[at], "-E"))
            keep = 1;
        else if (!strcmp(words[at], "-i") || !strcmp(words[at], "-s"))
            shell = 1;
        else if (!strcmp(words[at], "-v"))
            return 0;
        else
            for (const char *letter = words[at] + 1; *letter; letter++)
                if (*letter == 'E')
                    keep = 1;
                else if (!strchr("nSHk", *letter)) {
                    fprintf(stderr, "sudo: unknown option %s\n", words[at]);
                    return 1;
                }
    }
    struct passwd *to = getpwnam(name);
    if (!to) {
        fprintf(stderr, "sudo: unknown user %s\n", name);
        return 1;
    }
    if (!keep) {
        clearenv();
        if (term)
            setenv("TERM", term, 1);
    }
    setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
    setenv("HOME", to->pw_dir, 1);
    setenv("USER", name, 1);
    setenv("LOGNAME", name, 1);
    setenv("SHELL", "/bin/sh", 1);
    if (from)
        setenv("SUDO_USER", from, 1);
    for (; at < count && strchr(words[at], '=') && words[at][0] != '/'; at++)
        putenv(words[at]);
    if (initgroups(name, to->pw_gid) || setgid(to->pw_gid) || setuid(to->pw_uid)) {
        perror("sudo");
        return 1;
    }
    if (shell && at < count) {
        char *all[] = {"/bin/sh", "-c", words[at], NULL};
        execv("/bin/sh", all);
    } else if (at < count) {
        execvp(words[at], words + at);
    } else if (shell) {
        execl("/bin/sh", "-sh", (char *)NULL);
    } else {
        fprintf(stderr, "usage: sudo [-n] [-S] [-E] [-H] [-u USER] [NAME=VALUE] COMMAND\n");
        return 1;
    }
    fprintf(stderr, "sudo: %s: command not found\n", at < count ? words[at] : "sh");
    return 1;
}
