"""Training: the algorithm on one page, in the order in which it happens."""

from __future__ import annotations

from contextlib import closing

from bigmodel.reporting.base import Summary
from bigmodel.training import calibration, out_of_fold, records, validation
from bigmodel.training.lifecycle import running
from bigmodel.training.plan import EVERYTHING
from bigmodel.training.profiler import profiling
from bigmodel.training.recovery import drain_step_metrics, recovering, save
from bigmodel.training.run import Run
from bigmodel.training.steps import steps


def fit(run: Run) -> Summary:
    """Trains for the planned steps, calibrates on the validation set, then evaluates the test set once,
    with the best weights. In a cross-validation it also predicts the samples that it has held out.

    Raises:
        Stopped: the process was asked to stop; everything is saved.
        NonFiniteError: the loss or a weight became NaN or infinite; the last good checkpoint stays.
        CheckpointError: a checkpoint cannot be written.
        DeviceError: memory ran out, and smaller micro-batches do not help or are not allowed.
        DataError: a thread that gathers batches hangs.
    """
    state, progress, sinks = run.state, run.state.progress, run.sinks
    with running(run), profiling(run) as profiler:
        for epoch in run.epochs_left():
            # Saves before it stops; goes back to the last checkpoint after a batch that diverged.
            with recovering(run, profiler), closing(steps(run, epoch, profiler)) as iterator:
                # `done` is more than one where the engine does several steps in a call, and 0 where
                # something is due between two steps, such as a save that a signal asks for. `due` is
                # None after most of them: anything else waits for the device.
                for done, due in iterator:
                    progress.step += done
                    if due is None:
                        continue
                    progress.out_of_time = due.out_of_time
                    drain_step_metrics(run)
                    if due.report:
                        run.saver.check()  # raises if a checkpoint could not be written meanwhile
                        records.update_progress_bar(run)

                    if due.evaluate or due.save:
                        state.check_finite()  # a broken model is never evaluated, saved or the best
                    speed = run.watch.speed()  # of training alone, so before the evaluation
                    result = None
                    if due.evaluate:
                        result = validation.validate(run, show=due.log)
                        progress.apply(result)
                        # Some schedules, such as plateau, follow the monitored metric.
                        state.schedule.observe(result.monitored, run.monitor.mode, progress.step)
                        if result.stop:
                            due = EVERYTHING
                    improved = result is not None and result.improved

                    if due.record:
                        record = records.make_record(run, result, speed)
                        progress.final = record
                        if improved:
                            progress.best = record
                        # The next record is of the steps from here on.
                        progress.loss_sum = progress.loss_weight = 0.0
                        run.step.metrics.reset()
                        sinks.record(record, progress.best)
                        if due.log:
                            sinks.log(record)
                    # A run that is stopped before this line does what was due when it is resumed.
                    if due.scheduled:
                        progress.last_completed_step = progress.step

                    if due.save or improved:
                        progress.spend(run.watch.lap(), run.watch.joules())
                        save(run, best=improved, last=due.save, now=due.save_now)
        if progress.out_of_time:
            records.explain_end(run)
        calibration.write_calibration(run)
        run.summary.test = validation.test(run)
        out_of_fold.write_predictions(run)
    return run.summary
