"""What stands between the parameters and a run: data, weights, machine, jobs, time; nothing is changed by asking."""
