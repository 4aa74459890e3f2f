/* The monitor: one native thread that notices when goroutines wait to be started and no worker starts them.
 *
 * It looks at two counters and never at a Python object; only its report, the function it is given, takes the GIL.
 * While nothing happens it sleeps without a deadline. Go's name for it is sysmon.
 */
#ifndef GOLOOP_MONITOR_H
#define GOLOOP_MONITOR_H

#include <stdint.h>

typedef int (*gl_backlog_report)(void);
typedef int64_t (*gl_look)(void); /* returns in how many ns it wants to look again; 0: when it is poked */

/* Each waits for the other, and the second one for the thread's end: not with the GIL, which its report may want. */
int gl_monitor_start(gl_backlog_report report); /* 0, or an error; nothing when it runs already. Any thread */
void gl_monitor_stop(void);                     /* nothing when it does not run. Any thread but its own */

void gl_monitor_backlog(long change); /* so many more goroutines wait; any thread */
void gl_monitor_started(void);        /* one of them was started; any thread */

void gl_monitor_set_look(gl_look look); /* what else to look at, NULL: nothing; any thread */
void gl_monitor_poke(void);             /* there is something to look at; any thread */

int gl_thread_clock(void);        /* the clock id of this thread's processor time, -1: none */
int64_t gl_thread_cpu(int clock); /* its value in nanoseconds; -1 for a thread that has ended */

#endif
