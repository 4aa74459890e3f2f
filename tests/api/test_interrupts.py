"""Ctrl-C and other signals that end a run. They would end pytest as well, so each scenario is a script of its own."""

import signal

from tests.helpers.scripts import run_loop_script


def test_ctrl_c_reaches_a_sleeping_loop_each_time(both):
    """A signal that comes just before the system call is seen only after it: asyncio's own gap, hence more than one."""

    def scenario(loop):
        return run_loop_script(
            loop,
            """
            def interrupt(asleep, interrupted):
                asleep.wait()
                time.sleep(0.002)  # to find the loop asleep more often
                os.kill(os.getpid(), signal.SIGINT)
                while not interrupted.wait(0.1):
                    os.kill(os.getpid(), signal.SIGINT)

            for n in range(20):
                asleep, interrupted = threading.Event(), threading.Event()
                thread = threading.Thread(target=interrupt, args=(asleep, interrupted))
                thread.start()
                loop.call_soon(asleep.set)
                try:
                    loop.run_forever()
                except KeyboardInterrupt:
                    signal.signal(signal.SIGINT, signal.SIG_IGN)
                interrupted.set()
                thread.join()
                signal.signal(signal.SIGINT, signal.default_int_handler)
                print("interrupted", loop.is_running())
            print(loop.run_until_complete(asyncio.sleep(0, "usable")))
            loop.close()
            """,
        )

    assert both(scenario) == (0, "interrupted False\n" * 20 + "usable\n")


def test_an_unhandled_signal_ends_the_process(both):
    def scenario(loop):
        return run_loop_script(
            loop,
            """
            loop.call_later(0.001, os.kill, os.getpid(), signal.SIGTERM)
            loop.run_forever()
            """,
        )

    assert both(scenario) == (-signal.SIGTERM, "")


def test_ctrl_c_cancels_the_main_task_of_a_runner(both):
    def scenario(loop):
        return run_loop_script(
            loop,
            """
            loop.close()

            async def main():
                asyncio.get_running_loop().call_later(0.001, os.kill, os.getpid(), signal.SIGINT)
                try:
                    await asyncio.sleep(3600)
                finally:
                    print("cancelled", asyncio.current_task().cancelling())

            try:
                with asyncio.Runner(loop_factory=new_loop) as runner:
                    runner.run(main())
            except KeyboardInterrupt:
                print("interrupted", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
            """,
        )

    assert both(scenario) == (0, "cancelled 1\ninterrupted True\n")


def test_the_second_ctrl_c_leaves_a_runner_at_once(both):
    def scenario(loop):
        return run_loop_script(
            loop,
            """
            loop.close()

            async def main():
                while True:
                    asyncio.get_running_loop().call_later(0.001, os.kill, os.getpid(), signal.SIGINT)
                    try:
                        await asyncio.sleep(3600)
                    except asyncio.CancelledError:
                        print("cancelled")

            runner = asyncio.Runner(loop_factory=new_loop)
            try:
                runner.run(main())
            except KeyboardInterrupt:
                print("interrupted")
            sys.stdout.flush()
            os._exit(0)  # the task would swallow a third cancellation as well
            """,
        )

    assert both(scenario) == (0, "cancelled\ninterrupted\n")
