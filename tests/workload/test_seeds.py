import numpy as np

from kmemexp.workload import seeds


def test_numpy_still_spawns_the_known_numbers():
    assert np.random.SeedSequence(entropy=42, spawn_key=(3, 7)).generate_state(2).tolist() == [958908296, 2590339925]
    first = np.random.Generator(np.random.PCG64(np.random.SeedSequence(42, spawn_key=(0,))))
    assert first.integers(0, 1000, 3).tolist() == [497, 916, 581]


def test_generator_is_keyed_by_cause_and_replica():
    direct = np.random.Generator(np.random.PCG64(np.random.SeedSequence(42, spawn_key=(seeds.CPUS, 7))))
    assert np.array_equal(seeds.generator(42, seeds.CPUS, 7).random(5), direct.random(5))


def test_causes_and_replicas_have_streams_of_their_own():
    causes = (seeds.ARRIVALS, seeds.SIZES, seeds.LIFETIMES, seeds.CPUS, seeds.CONTEXTS, seeds.SHIFTS)
    draws = {seeds.generator(0, cause, replica).random() for cause in causes for replica in range(10)}
    assert len(draws) == 10 * len(causes)
